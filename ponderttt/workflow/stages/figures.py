"""Stage ``figures``: every figure of the study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ponderttt.reporting.figures.decisions import allocation, calibration
from ponderttt.reporting.figures.frontier import frontier
from ponderttt.reporting.figures.pareto import pareto
from ponderttt.reporting.figures.policy_curves import policy_curves
from ponderttt.reporting.figures.signals import signals
from ponderttt.reporting.figures.stream_gain import gain_along_stream
from ponderttt.reporting.figures.table_figures import decomposition, seed_dots
from ponderttt.reporting.figures.training_curves import training_curves
from ponderttt.reporting.numbers.arms import load_arms
from ponderttt.reporting.numbers.rows import FRONTIER, SIGNALS, table_manifest
from ponderttt.settings.statistics import StatisticsConfig


def make_figures(
    table: Path | str,
    seeds: Path | str,
    run_folders: Sequence[Path | str],
    training_logs: Sequence[Path | str],
    policy_logs: Sequence[Path | str],
    records_code: str,
    statistics: StatisticsConfig,
    outputs: Mapping[str, Sequence[Path | str]],
) -> None:
    """Draw every figure that is asked for; control corpora are in the table and its guide only.

    Args:
        table: ``paper_table.csv``, beside it ``frontier.csv`` and ``signals.csv``.
        seeds: ``seeds.csv``.
        run_folders: every arm and seed of the grid.
        training_logs: ``log.jsonl`` of every trained adapter.
        policy_logs: ``log.jsonl`` of every policy that PPO trained.
        records_code: the stage digest that all records must carry.
        statistics: of the bands along the stream.
        outputs: figure → its files, one for each format.
    """
    facts = table_manifest(table)["facts"]
    arms, _, _ = load_arms(
        [Path(f) for f in run_folders], records_code, allow_missing=statistics.allow_missing
    )
    arms = [arm for arm in arms if arm.key.corpus not in facts["control_corpora"]]
    beside = Path(table).parent
    draw: dict[str, Callable[[Sequence[Path | str]], None]] = {
        "pareto": lambda files: pareto(table, files),
        "frontier": lambda files: frontier(table, beside / FRONTIER, files),
        "gain_along_stream": lambda files: gain_along_stream(arms, statistics, files),
        "allocation": lambda files: allocation(arms, files),
        "calibration": lambda files: calibration(arms, files),
        "signals": lambda files: signals(table, beside / SIGNALS, files),
        "seed_dots": lambda files: seed_dots(table, seeds, files),
        "decomposition": lambda files: decomposition(table, files),
        "training_curves": lambda files: training_curves(training_logs, files),
        "policy_curves": lambda files: policy_curves(policy_logs, files),
    }
    for name, files in outputs.items():
        draw[name](files)
