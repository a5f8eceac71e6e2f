"""Stages ``select``, ``contents`` and ``merge``: a dataset of the hub becomes the shards of a corpus, in many jobs."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ponderttt.config import CorpusConfig
from ponderttt.corpus.drops import Drops, drop_rows, format_drop_report
from ponderttt.corpus.hub.buckets import BucketWriter, bucket_file, read_bucket
from ponderttt.corpus.hub.candidates import Candidate, candidates_of, joined_documents
from ponderttt.corpus.hub.contents import Content, ContentClient
from ponderttt.corpus.hub.merge import merge
from ponderttt.corpus.hub.rows import AGREEMENT, check_terms, dataset_name, open_rows
from ponderttt.corpus.hub.segments import build_segments
from ponderttt.corpus.hub.selection import Selection
from ponderttt.corpus.shards import shards_digest
from ponderttt.corpus.staging import staged_folder
from ponderttt.jobs.entry import Progress
from ponderttt.layout import rebuild
from ponderttt.mapping import as_mapping
from ponderttt.provenance import MANIFEST, digest, finished, read_manifest, verify_file, write_manifest

SELECTED, CONTENTS = "selected", "contents"


def select(corpus: CorpusConfig, name: str, part: int, output_dir: Path | str, progress: Progress) -> None:
    """Write ``data/selected/{corpus}/part-{part}/``: the files of one part of a dataset that are wanted, by bucket.

    Args:
        corpus: its settings.
        name: what the configuration calls it.
        part: number of the part.
        output_dir: its folder.
        progress: of the job, in rows; nobody knows how many there are.
    """
    assert corpus.hub is not None
    check_terms(corpus, name)
    if corpus.kind == "stack_v2":
        print(AGREEMENT)
    selection, drops, rows = Selection.of(corpus), Drops(), 0

    def found() -> Iterator[Candidate]:
        nonlocal rows
        for table in open_rows(corpus, part):
            for file in candidates_of(corpus, table, part, rows):
                if file is None:
                    drops.add("incomplete", 0)
                else:
                    yield file
            rows += len(table)
            progress(rows, 0, f"{rows} rows read")

    files = found()
    if corpus.hub.document_start is not None:
        files = joined_documents(files, corpus.hub.document_start)
    with staged_folder(output_dir, "bucket-*.parquet") as staged:
        with BucketWriter(staged, corpus.hub.parts) as writer:
            for file in files:
                reason = selection.reason(file)
                if reason is None:
                    writer.add(file)
                else:
                    drops.add(reason, file.length_bytes)
        counts: dict[str, int | None] = {bucket_file(i): n for i, n in enumerate(writer.rows)}
        facts = {"corpus": name, "dataset": dataset_name(corpus), "rows": rows, "drops": drops.as_facts()}
        write_manifest(staged, SELECTED, counts, facts)


def fetch(
    corpus: CorpusConfig,
    name: str,
    bucket: int,
    parts: Sequence[Path | str],
    output_dir: Path | str,
    settings: str,
    progress: Progress,
) -> None:
    """Write ``data/contents/{corpus}/bucket-{bucket}/``: the files of a bucket with their contents, and their signatures.

    Args:
        corpus: its settings.
        name: what the configuration calls it.
        bucket: number of the bucket.
        parts: folders of :func:`select`, of all parts.
        output_dir: folder of the bucket.
        settings: digest of code and settings that contents depend on; segments of others are made again.
        progress: of the job, in files.
    """
    assert corpus.hub is not None
    folders, output = [Path(part) for part in parts], Path(output_dir)
    file, entries = bucket_file(bucket), []
    for folder in folders:
        again = rebuild(folder / MANIFEST)
        manifest = read_manifest(folder, SELECTED, again, verify=False)
        verify_file(folder, manifest, file, again)
        entries.append(manifest["files"][file])
    total = sum(entry["rows"] for entry in entries)
    client = ContentClient(corpus.hub.contents) if corpus.kind == "stack_v2" else None

    def content_of(file: Candidate) -> Content:
        if client is not None:
            return client.content(file)
        assert file.content is not None
        return Content(file.content.encode("utf-8", "surrogatepass"), file.content, None)

    segments = build_segments(
        corpus,
        name,
        read_bucket(folders, bucket, output / "scratch", inline=client is None),
        content_of,
        output,
        dataset_name(corpus),
        digest([settings, [entry["sha256"] for entry in entries]]),
        lambda done: progress(done, total, "files"),
    )
    drops, failures = Drops(), []
    for segment in segments:
        drops.add_facts(segment.facts["drops"])
        failures += segment.facts["failures"]
    rows: dict[str, int | None] = {}
    for segment in segments:
        rows |= {segment.path.name: segment.facts["files"], segment.signatures.name: segment.facts["files"]}
    facts = {"corpus": name, "drops": drops.as_facts(), "failures": failures}
    write_manifest(output, CONTENTS, rows, facts)
    finished(output)
    shutil.rmtree(output / "scratch")


def merge_buckets(
    corpus: CorpusConfig,
    name: str,
    parts: Sequence[Path | str],
    buckets: Sequence[Path | str],
    output_dir: Path | str,
    train_shards: Path | str | None,
) -> None:
    """Write ``data/shards/{corpus}/`` and print what was dropped and why.

    Args:
        corpus: its settings.
        name: what the configuration calls it.
        parts: folders of :func:`select`.
        buckets: folders of :func:`fetch`, in order.
        output_dir: folder of the shards.
        train_shards: shards whose files must not be in this corpus; ``None`` for the training corpus itself.
    """
    drops, segments, signatures = Drops(), list[Path](), list[Path]()
    failures: Counter[str] = Counter()
    for folder in map(Path, parts):
        facts = read_manifest(folder, SELECTED, rebuild(folder / MANIFEST), verify=False)["facts"]
        drops.add_facts(facts["drops"])
    for folder in map(Path, buckets):
        manifest = read_manifest(folder, CONTENTS, rebuild(folder / MANIFEST))
        drops.add_facts(manifest["facts"]["drops"])
        failures.update(failure["reason"] for failure in manifest["facts"]["failures"])
        segments += [folder / file for file in manifest["files"] if file.startswith("segment-")]
        signatures += [folder / file for file in manifest["files"] if file.startswith("signatures-")]
    again = "" if train_shards is None else rebuild(Path(train_shards) / MANIFEST)
    facts = merge(
        corpus,
        name,
        segments,
        signatures,
        output_dir,
        {
            "corpus": name,
            "config": as_mapping(corpus),
            "dataset": dataset_name(corpus),
            "failures": dict(sorted(failures.items())),
            "train_shards": None if train_shards is None else shards_digest(train_shards, again),
        },
        drops,
        train_shards,
        again,
    )
    print(format_drop_report(drop_rows(name, facts)))
