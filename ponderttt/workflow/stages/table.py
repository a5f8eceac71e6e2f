"""Stage ``table``: the table, the values of its seeds, and the guide to reading them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ponderttt.files.commands import rebuild, workflow_command
from ponderttt.files.folder import Folder
from ponderttt.files.manifest import read_manifest
from ponderttt.reporting.guide.guide import write_reading_guide
from ponderttt.reporting.numbers.tables import write_table
from ponderttt.settings.mapping import settings
from ponderttt.settings.statistics import StatisticsConfig
from ponderttt.workflow.jobs import Job


@settings
class Settings:
    """Statistics, and facts that all runs share.

    Attributes:
        statistics: intervals, tests and declared comparisons.
        control_corpora: control corpus → its kind.
        missing: folders of runs of the grid that are left out, for the manifest and the guide.
        records_code: stage digest that all records must have.
    """

    statistics: StatisticsConfig
    control_corpora: dict[str, Literal["random_tokens", "repeated"]]
    missing: tuple[str, ...]
    records_code: str


@dataclass(frozen=True)
class Inputs:
    """Every run of the grid, losses of all sequences, and the converted models, for the sizes of their vocabularies."""

    manifests: tuple[Folder, ...]
    sequences: tuple[Folder, ...]
    models: tuple[Folder, ...]


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``paper_table.csv``, the files beside it, their manifest and the guide ``README.md``."""
    table = job.file("table")
    write_table(
        [*inputs.manifests, *settings.missing],
        settings.records_code,
        settings.statistics,
        Path(table).parent,
        workflow_command(table),
        sequences=inputs.sequences,
        control_corpora=settings.control_corpora,
        vocabularies={model.path.name: _vocabulary(model) for model in inputs.models},
    )
    write_reading_guide(table, Path(job.file("guide")))


def _vocabulary(model: Folder) -> int:
    facts = read_manifest(model, "model", rebuild(model.manifest), verify=False)["facts"]
    return int(facts["vocab_size"])
