"""Stage ``figures``: every figure of the study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ponderttt.files.folder import Folder
from ponderttt.reporting.figures.decisions import allocation, calibration
from ponderttt.reporting.figures.frontier import frontier
from ponderttt.reporting.figures.pareto import pareto
from ponderttt.reporting.figures.policy_curves import policy_curves
from ponderttt.reporting.figures.signals import signals
from ponderttt.reporting.figures.stream_gain import gain_along_stream
from ponderttt.reporting.figures.table_figures import decomposition, seed_dots
from ponderttt.reporting.figures.training_curves import training_curves
from ponderttt.reporting.numbers.arms import load_arms
from ponderttt.reporting.numbers.results import read_results
from ponderttt.settings.mapping import settings
from ponderttt.settings.statistics import StatisticsConfig
from ponderttt.workflow.jobs import Job


@settings
class Settings:
    """Figures to draw.

    Attributes:
        names: figures.
        statistics: samples, confidence and seed of the bands along the stream.
        records_code: stage digest that all records must have.
    """

    names: tuple[str, ...]
    statistics: StatisticsConfig
    records_code: str


@dataclass(frozen=True)
class Inputs:
    """Inputs of all figures.

    Attributes:
        table: ``paper_table.csv``, with the other result files in the same folder.
        manifests: every run of the grid.
        logs: ``log.jsonl`` of every trained adapter.
        policies: ``log.jsonl`` of every policy that PPO trained.
    """

    table: Path
    manifests: tuple[Folder, ...]
    logs: tuple[Path, ...]
    policies: tuple[Path, ...]


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write the files of every figure in the settings."""
    make_figures(
        inputs.table,
        inputs.manifests,
        inputs.logs,
        inputs.policies,
        settings.records_code,
        settings.statistics,
        {name: job.files[name] for name in settings.names},
    )


def make_figures(
    table: Path | str,
    run_folders: Sequence[Path | str],
    training_logs: Sequence[Path | str],
    policy_logs: Sequence[Path | str],
    records_code: str,
    statistics: StatisticsConfig,
    outputs: Mapping[str, Sequence[Path | str]],
) -> None:
    """Draw figures; control corpora are in the table and its guide only.

    Args:
        table: ``paper_table.csv``, with the other result files in the same folder.
        run_folders: every run of the grid.
        training_logs: ``log.jsonl`` of every trained adapter.
        policy_logs: ``log.jsonl`` of every policy that PPO trained.
        records_code: stage digest that all records must have.
        statistics: samples, confidence and seed of the bands along the stream.
        outputs: figure → its files, one per format.
    """
    results = read_results(table)
    arms, _ = load_arms(run_folders, records_code, allow_missing=statistics.allow_missing)
    arms = [arm for arm in arms if arm.key.corpus not in results.facts["control_corpora"]]
    draw: dict[str, Callable[[Sequence[Path | str]], None]] = {
        "pareto": lambda files: pareto(results, files),
        "frontier": lambda files: frontier(results, files),
        "gain_along_stream": lambda files: gain_along_stream(arms, statistics, files),
        "allocation": lambda files: allocation(arms, files),
        "calibration": lambda files: calibration(arms, files),
        "signals": lambda files: signals(results, files),
        "seed_dots": lambda files: seed_dots(results, files),
        "decomposition": lambda files: decomposition(results, files),
        "training_curves": lambda files: training_curves(training_logs, files),
        "policy_curves": lambda files: policy_curves(policy_logs, files),
    }
    for name, files in outputs.items():
        draw[name](files)
