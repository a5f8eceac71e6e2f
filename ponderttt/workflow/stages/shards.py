"""Stage ``shards``: the files of a corpus that pass every filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ponderttt.corpus.drops import drop_rows, format_drop_report
from ponderttt.corpus.shards import build_shards
from ponderttt.files.folder import Folder
from ponderttt.settings.corpus import CorpusConfig
from ponderttt.settings.mapping import settings
from ponderttt.workflow.jobs import Job


@settings
class Settings:
    """A corpus of packages or files.

    Attributes:
        name: its name in the configuration.
        corpus: its settings.
        packages: its rows of the list of packages, so that an edited row rebuilds the corpus.
    """

    name: str
    corpus: CorpusConfig
    packages: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Inputs:
    """Shards whose files must not be in this corpus; none for the training corpus itself."""

    train: tuple[Folder, ...]


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``data/shards/{corpus}/`` and print what was dropped and why."""
    facts = build_shards(
        settings.corpus, settings.name, job.place.downloads, job.folder, inputs.train, job.progress
    )
    print(format_drop_report(drop_rows(settings.name, facts)))
