"""Stage ``select``: the files of one part of a dataset that a corpus keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
from ponderttt.settings.mapping import settings
from ponderttt.workflow.access import with_access
from ponderttt.workflow.entry import Progress
from ponderttt.workflow.jobs import Job


@settings
class Settings:
    """One part of a dataset.

    Attributes:
        name: the corpus' name in the configuration.
        part: number of the part.
        corpus: settings that a selection depends on, all others at their defaults.
        files: sha256 of the opt-out list.
    """

    name: str
    part: int
    corpus: CorpusConfig
    files: tuple[str, ...]


@dataclass(frozen=True)
class Inputs:
    """Nothing of this study."""


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``data/selected/{corpus}/part-{part}/``."""
    corpus = with_access(settings.corpus, job.place.access)
    select(corpus, settings.name, settings.part, job.folder, job.progress)


def select(corpus: CorpusConfig, name: str, part: int, output_dir: Path | str, progress: Progress) -> None:
    """Write the files of one part of a dataset that the corpus keeps, by bucket.

    Args:
        corpus: its settings.
        name: its name in the configuration.
        part: number of the part.
        output_dir: folder of the part.
        progress: called with the number of rows so far; the total is unknown, so it is 0.
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
