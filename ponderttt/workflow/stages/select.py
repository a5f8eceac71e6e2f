"""Stage ``select``: the files of one part of a dataset that are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ponderttt.corpus.drops import Drops
from ponderttt.corpus.hub.buckets import BucketWriter, bucket_file
from ponderttt.corpus.hub.candidates import Candidate, candidates_of, joined_documents
from ponderttt.corpus.hub.kinds import SELECTED
from ponderttt.corpus.hub.rows import AGREEMENT, check_terms, dataset_name, open_rows
from ponderttt.corpus.hub.selection import Selection
from ponderttt.files.manifest import write_manifest
from ponderttt.files.staging import staged_folder
from ponderttt.settings.corpus import CorpusConfig
from ponderttt.workflow.entry import Progress


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
    hub = corpus.hub
    with staged_folder(output_dir, "bucket-*.parquet") as staged:
        with BucketWriter(staged, hub.parts, hub.hash_from, hub.hash_to) as writer:
            for file in files:
                reason = selection.reason(file)
                if reason is None:
                    writer.add(file)
                else:
                    drops.add(reason, file.length_bytes)
        counts: dict[str, int | None] = {bucket_file(i): n for i, n in enumerate(writer.rows)}
        facts = {"corpus": name, "dataset": dataset_name(corpus), "rows": rows, "drops": drops.as_facts()}
        write_manifest(staged, SELECTED, counts, facts)
