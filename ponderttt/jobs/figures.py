"""Stage ``figures``: every figure of the study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ponderttt.config import StatisticsConfig
from ponderttt.reporting.figures import decomposition, pareto, seed_dots
from ponderttt.reporting.stream_gain import gain_along_stream
from ponderttt.reporting.training_curves import training_curves


def make_figures(
    table: Path | str,
    seeds: Path | str,
    run_folders: Sequence[Path | str],
    training_logs: Sequence[Path | str],
    records_code: str,
    statistics: StatisticsConfig,
    outputs: Mapping[str, Sequence[Path | str]],
) -> None:
    """Draw every figure that is asked for.

    Args:
        table: ``paper_table.csv``.
        seeds: ``seeds.csv``.
        run_folders: every arm and seed of the grid.
        training_logs: ``log.jsonl`` of every trained adapter.
        records_code: the stage digest that all records must carry.
        statistics: of the bands along the stream.
        outputs: figure → its files, one for each format.
    """
    draw: dict[str, Callable[[Sequence[Path | str]], None]] = {
        "pareto": lambda files: pareto(table, files),
        "gain_along_stream": lambda files: gain_along_stream(run_folders, records_code, statistics, files),
        "seed_dots": lambda files: seed_dots(table, seeds, files),
        "decomposition": lambda files: decomposition(table, files),
        "training_curves": lambda files: training_curves(training_logs, files),
    }
    for name, files in outputs.items():
        draw[name](files)
