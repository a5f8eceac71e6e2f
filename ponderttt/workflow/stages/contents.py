"""Stage ``contents``: the files of one bucket with their contents, filtered and signed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ponderttt.corpus.drops import Drops
from ponderttt.corpus.hub.buckets import bucket_file, read_bucket
from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.corpus.hub.contents import Content, ContentClient
from ponderttt.corpus.hub.fetched import FetchedContents
from ponderttt.corpus.hub.kinds import CONTENTS, SELECTED
from ponderttt.corpus.hub.segments import build_segments
from ponderttt.files.atomic import digest
from ponderttt.files.commands import rebuild
from ponderttt.files.folder import Folder
from ponderttt.files.manifest import MANIFEST, finished, read_manifest, verify_file, write_manifest
from ponderttt.settings.corpus import CorpusConfig
from ponderttt.settings.mapping import as_mapping, settings
from ponderttt.workflow.access import with_access
from ponderttt.workflow.entry import Progress
from ponderttt.workflow.jobs import Job

#: Folder next to those of the buckets, with the contents fetched for all of them.
FETCHED = "fetched"


@settings
class Settings:
    """One bucket of a dataset.

    Attributes:
        name: the corpus' name in the configuration.
        bucket: number of the bucket.
        corpus: settings that contents depend on, all others at their defaults.
        files: sha256 of the benchmarks in ``hub.decontaminate``.
    """

    name: str
    bucket: int
    corpus: CorpusConfig
    files: tuple[str, ...]


@dataclass(frozen=True)
class Inputs:
    """The selected files of all parts."""

    parts: tuple[Folder, ...]


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``data/contents/{corpus}/bucket-{bucket}/``."""
    corpus = settings.corpus
    assert corpus.hub is not None
    # If fewer failures are allowed, a bucket asks again for what it misses and keeps the rest.
    any_failures = replace(corpus.hub, contents=replace(corpus.hub.contents, max_failures=0.0))
    made_with = as_mapping(replace(settings, corpus=replace(corpus, hub=any_failures)))
    fetch(
        with_access(corpus, job.place.access),
        settings.name,
        settings.bucket,
        inputs.parts,
        job.folder,
        digest([made_with, job.code]),
        job.progress,
    )


def fetch(
    corpus: CorpusConfig,
    name: str,
    bucket: int,
    parts: Sequence[Path | str],
    output_dir: Path | str,
    settings: str,
    progress: Progress,
) -> None:
    """Write the files of a bucket with their contents, and their signatures.

    Args:
        corpus: its settings.
        name: its name in the configuration.
        bucket: number of the bucket.
        parts: folders of :func:`ponderttt.workflow.stages.select.select`, of all parts.
        output_dir: folder of the bucket; contents from the server are kept in ``fetched`` next to it.
        settings: digest of code and settings that contents depend on; segments with another one are rebuilt.
        progress: called with the number of files done.
    """
    assert corpus.hub is not None
    folders, output = [Path(part) for part in parts], Path(output_dir)
    file, entries, dataset = bucket_file(bucket), [], ""
    for folder in folders:
        again = rebuild(folder / MANIFEST)
        manifest = read_manifest(folder, SELECTED, again, verify=False)
        verify_file(folder, manifest, file, again)
        entries.append(manifest["files"][file])
        dataset = manifest["facts"]["dataset"]
    total = sum(entry["rows"] for entry in entries)
    scratch = output / "scratch"
    fetched = (
        FetchedContents(ContentClient(corpus.hub.contents), output.parent / FETCHED, scratch)
        if corpus.kind == "stack_v2"
        else None
    )
    segments = build_segments(
        corpus,
        name,
        read_bucket(folders, bucket, scratch, inline=fetched is None),
        _brought_along if fetched is None else fetched.contents,
        output,
        dataset,
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
    shutil.rmtree(scratch)


def _brought_along(files: Iterable[Candidate]) -> Iterator[tuple[Candidate, Content]]:
    """The contents of files that have them from their dataset."""
    for file in files:
        assert file.content is not None
        yield file, Content(file.content.encode("utf-8", "surrogatepass"), file.content, None)
