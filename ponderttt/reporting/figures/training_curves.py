"""Training of the slow weights: losses on training windows and on validation streams, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.commands import rebuild
from ponderttt.reporting.figures.logs import Lines, read_log
from ponderttt.reporting.figures.style import (
    BLACK,
    BLUE,
    GREY,
    VERMILLION,
    LineStyle,
    handle,
    in_style,
    legend_above,
    new_figure,
    save,
)
from ponderttt.reporting.numbers.methods import rank_of_fast_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
#: Key in the log, colour, marker, legend.
_VALIDATIONS = (
    ("validation_loss_skip", GREY, "D", "0 updates"),
    ("validation_loss", VERMILLION, "o", "UPDATE_1"),
)


def read_training_log(path: Path | str) -> tuple[Lines, Lines]:
    """Read the steps and the validations of one ``log.jsonl``, in order of steps; of a repeated step, the last.

    Raises as :func:`~ponderttt.reporting.figures.logs.read_log`.
    """
    steps: dict[int, dict[str, Any]] = {}
    validations: dict[int, dict[str, Any]] = {}
    for line in read_log(
        path, lambda line: ("step", "validation_loss" if "validation_loss" in line else "loss")
    ):
        (validations if "validation_loss" in line else steps)[line["step"]] = line
    if not steps:
        raise CorruptFileError(f"{path}: no training step. Rebuild it: {rebuild(path)}")
    return [steps[step] for step in sorted(steps)], [validations[step] for step in sorted(validations)]


@in_style
def training_curves(logs: Sequence[Path | str], outputs: Sequence[Path | str]) -> None:
    """Draw the losses while slow weights are trained: above on training windows, below on validation streams.

    If every line has the frozen backbone's loss on the same tokens, it is subtracted, since windows differ in difficulty
    far more than training changes their loss.

    Args:
        logs: ``…/training/{model}/{fast_weights}/seed-{seed}/log.jsonl``; one column per model and fast weights.
        outputs: files to write; the suffix decides the format.

    Raises:
        PonderTTTError: no log was given, or one is damaged.
    """
    if not logs:
        raise PonderTTTError("no training log was given: no fast weights of the grid are trained")
    columns: dict[tuple[str, str], dict[str, tuple[Lines, Lines]]] = {}
    for log in sorted(
        map(Path, logs), key=lambda path: (path.parts[-4], rank_of_fast_weights(path.parts[-3]), path)
    ):
        model, fast_weights, seed = log.parts[-4:-1]
        columns.setdefault((model, fast_weights), {})[seed] = read_training_log(log)
    every = [runs for column in columns.values() for runs in column.values()]
    subtract = all("loss_frozen" in line for steps, _ in every for line in steps) and all(
        "validation_loss_frozen" in line for _, validations in every for line in validations
    )
    wide = min(len(columns), 3)
    blocks = -(-len(columns) // wide)
    figure, axes = new_figure(2 * blocks, wide, 4.1 * wide, 0.6 + 5.0 * blocks)
    # Each pair of rows is a block of columns: training above, validation below.
    pairs = axes.reshape(blocks, 2, wide).swapaxes(1, 2).reshape(-1, 2)
    for spare in pairs[len(columns) :].flat:
        spare.remove()
    for (above, below), ((model, fast_weights), runs) in zip(pairs, columns.items(), strict=False):
        for style, (steps, validations) in zip(_styles(len(runs)), runs.values(), strict=True):
            _training_lines(above, steps, style, subtract)
            _validation_lines(below, validations, style, subtract)
        above.set_title(f"{fast_weights} on {model}")
        for panel in (above, below):
            if subtract:
                panel.axhline(0, color=BLACK, lw=0.8)
            panel.set_xlabel("training step")
            panel.set_xlim(above.get_xlim())
            panel.locator_params(axis="x", integer=True)
    unit = "loss − frozen backbone,\nnats per token" if subtract else "loss,\nnats per token"
    for block in range(blocks):
        axes[2 * block, 0].set_ylabel(f"training {unit}")
        axes[2 * block + 1, 0].set_ylabel(f"validation {unit}")
    seeds = list(dict.fromkeys(seed for column in columns.values() for seed in column))
    handles = [
        handle(GREY, "training windows", marker="", line="-", width=0.6),
        handle(BLUE, "running mean over a tenth of all steps", marker="", line="-"),
        *(handle(colour, f"validation, {what}", marker=marker) for _, colour, marker, what in _VALIDATIONS),
        *(
            handle(BLACK, seed, marker="", line=style)
            for seed, style in zip(seeds, _styles(len(seeds)), strict=True)
        ),
    ]
    legend_above(figure, handles)
    save(figure, outputs)


def _styles(count: int) -> list[LineStyle]:
    return [_LINE_STYLES[i % len(_LINE_STYLES)] for i in range(count)]


def _column(lines: Lines, name: str, frozen: str | None) -> Float[np.ndarray, " L"]:
    return np.array([line[name] - (line[frozen] if frozen else 0.0) for line in lines], np.float64)


def running_mean(values: Float[np.ndarray, " L"], width: int) -> Float[np.ndarray, " L"]:
    """Return the mean of each value and up to ``width`` − 1 before it."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    begin = np.maximum(end - width, 0)
    return (total[end] - total[begin]) / (end - begin)


def _training_lines(panel: Axes, lines: Lines, style: str, subtract: bool) -> None:
    step = np.array([line["step"] for line in lines])
    loss = _column(lines, "loss", "loss_frozen" if subtract else None)
    width = max(1, len(loss) // 10)
    panel.plot(step, loss, color=GREY, lw=0.6, alpha=0.45)
    panel.plot(step, running_mean(loss, width), color=BLUE, ls=style, lw=1.5)


def _validation_lines(panel: Axes, lines: Lines, style: str, subtract: bool) -> None:
    step = np.array([line["step"] for line in lines])
    frozen = "validation_loss_frozen" if subtract else None
    for name, colour, marker, _ in _VALIDATIONS:
        if all(name in line for line in lines):
            values = _column(lines, name, frozen)
            panel.plot(step, values, color=colour, marker=marker, ms=4.5, ls=style, lw=1.2)
