"""Stage ``drops``: what every corpus kept, and what it dropped for which reason."""

from __future__ import annotations

from dataclasses import dataclass

from ponderttt.corpus.drops import format_drop_report, write_drop_report
from ponderttt.files.commands import rebuild
from ponderttt.files.folder import Folder
from ponderttt.settings.mapping import settings
from ponderttt.workflow.jobs import Job


@settings
class Settings:
    """Nothing."""


@dataclass(frozen=True)
class Inputs:
    """Shards of every corpus of source files."""

    shards: tuple[Folder, ...]


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``drops.csv`` and print it."""
    again = rebuild(inputs.shards[0].manifest)
    print(format_drop_report(write_drop_report(job.file("drops"), inputs.shards, again)))
