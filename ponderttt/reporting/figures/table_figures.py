"""Figures of the table: the seeds' own values, and what a transductive number is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ponderttt.errors import PonderTTTError
from ponderttt.reporting.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    colour_of_fast_weights,
    handle,
    in_style,
    legend_above,
    new_figure,
    panel_grid,
    save,
)
from ponderttt.reporting.numbers.rows import (
    SeedRow,
    TableRow,
    decomposition_steps,
    groups_of,
    of_group,
    read_seeds,
    read_table,
    without_control_corpora,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@in_style
def seed_dots(table: Path | str, seeds: Path | str, outputs: Sequence[Path | str]) -> None:
    """Every seed's loss minus its reference as a dot, with the t-interval over seeds and the one over streams.

    One panel per fast weights; of methods at several budgets, the study's own.

    Raises:
        PonderTTTError: a file is missing or damaged, or no row has a difference to draw.
    """
    rows = [
        row
        for row in without_control_corpora(table, read_table(table))
        if row.delta_vs_skip is not None and row.update_rate > 0 and "@" not in row.method
    ]
    if not rows:
        raise PonderTTTError(
            f"{table}: no arm that updates has a reference to differ from; add the method skip to the grid"
        )
    raw = read_seeds(seeds)
    panels: dict[tuple[str, str, str], list[TableRow]] = {}
    for row in rows:
        panels.setdefault((row.corpus, row.model, row.fast_weights), []).append(row)
    tallest = max(map(len, panels.values()))
    figure, axes = panel_grid(len(panels), 3, 4.1, 1.0 + 0.25 * tallest, 0.4)
    for panel, ((corpus, model, fast_weights), mine) in zip(axes, panels.items(), strict=True):
        colour = colour_of_fast_weights(fast_weights, [row.fast_weights for row in rows])
        for y, row in enumerate(mine):
            _seed_line(panel, y, row, raw, colour)
        panel.axvline(0, color=GREY, lw=1)
        panel.set_yticks(range(len(mine)), [row.method for row in mine])
        panel.set_ylim(tallest - 0.5, -0.5)
        panel.locator_params(axis="x", nbins=5)
        panel.set_title(f"{fast_weights}\n{model} on {corpus}", fontsize=9)
    figure.supxlabel(
        "loss minus loss of the trained adapter with 0 updates, nats per token (left is better)", fontsize=9
    )
    handles = [
        handle(BLACK, "one seed", hollow=True),
        handle(BLACK, "t-interval over seeds", marker="", line="-"),
        handle(GREY, "bootstrap interval over streams", marker="", line="-", width=6),
    ]
    legend_above(figure, handles)
    save(figure, outputs)


def _seed_line(panel: Axes, y: int, row: TableRow, raw: Sequence[SeedRow], colour: str) -> None:
    if row.delta_ci_low is not None and row.delta_ci_high is not None:
        panel.plot([row.delta_ci_low, row.delta_ci_high], [y, y], color=colour, lw=7, alpha=0.25)
    if row.delta_seed_ci_low is not None and row.delta_seed_ci_high is not None:
        panel.plot([row.delta_seed_ci_low, row.delta_seed_ci_high], [y, y], color=colour, lw=1.3)
    same = ("model", "corpus", "fast_weights", "method", "protocol")
    values = [
        seed.delta_vs_skip
        for seed in raw
        if seed.delta_vs_skip is not None and all(getattr(seed, key) == getattr(row, key) for key in same)
    ]
    # Below one another by a hair, so that equal seeds are seen to be several.
    spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(len(values))
    panel.plot(values, y + spread, "o", ms=5, mfc="white", mec=colour, mew=1.3, ls="none")


@in_style
def decomposition(table: Path | str, outputs: Sequence[Path | str]) -> None:
    """Perplexity from the plain backbone to the transductive arm, in three steps; one panel per fast weights.

    Raises:
        PonderTTTError: no fast weights have all of plain, skip, update_1 and transductive in the table.
    """
    rows = without_control_corpora(table, read_table(table))
    chains = [
        (group, fast_weights, steps)
        for group in groups_of(rows)
        for fast_weights in dict.fromkeys(row.fast_weights for row in of_group(rows, group))
        if (steps := decomposition_steps(of_group(rows, group), fast_weights))
    ]
    if not chains:
        raise PonderTTTError(
            f"{table}: no fast weights have plain, skip, update_1 and transductive; add these methods to the grid"
        )
    figure, axes = new_figure(len(chains), 1, 8.5, 0.5 + 3.0 * len(chains))
    for panel, (group, fast_weights, steps) in zip(axes[:, 0], chains, strict=True):
        _waterfall(panel, steps)
        panel.set_title(f"{fast_weights}: {group[1]} on {group[0]}")
    save(figure, outputs)


def _waterfall(panel: Axes, steps: Sequence[tuple[str, TableRow]]) -> None:
    """Floating bars; the two ends are points, since the axis does not begin at zero."""
    from matplotlib.ticker import MaxNLocator

    names, rows = zip(*steps, strict=True)
    nats = [row.loss for row in rows]
    intervals = (
        (rows[1].delta_vs_plain_ci_low, rows[1].delta_vs_plain_ci_high),
        (rows[2].delta_ci_low, rows[2].delta_ci_high),
        (None, None),
    )
    panel.plot(nats[0], 0, "s", color=BLACK, ms=8)
    texts = [f"perplexity {rows[0].perplexity:.2f}"]
    for y, colour, (low, high) in zip((1, 2, 3), (BLUE, GREEN, VERMILLION), intervals, strict=True):
        panel.barh(y, nats[y] - nats[y - 1], left=nats[y - 1], color=colour, height=0.6)
        panel.plot([nats[y - 1]] * 2, [y - 1, y + 0.3], color=GREY, lw=0.8, zorder=0)
        between = "" if low is None else f" [{low:+.4f}, {high:+.4f}]"
        texts.append(f"{nats[y] - nats[y - 1]:+.4f}{between} nats: perplexity {rows[y].perplexity:.2f}")
    panel.plot([nats[3]] * 2, [3, 4], color=GREY, lw=0.8, zorder=0)
    panel.plot(nats[3], 4, "s", color=GREY, ms=8)
    texts.append(f"perplexity {rows[3].perplexity:.2f}: leaks labels, no result")
    width = (max(nats) - min(nats)) or 1.0
    left, right = min(nats) - 0.05 * width, max(nats) + 0.05 * width
    for y, text in enumerate(texts):
        panel.annotate(
            text,
            (1.0, y),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    panel.set_yticks(range(5), [*names, "transductive arm"])
    panel.invert_yaxis()
    panel.set_xlim(left, right)
    round_numbers = MaxNLocator(6).tick_values(math.exp(left), math.exp(right))
    ticks = [tick for tick in round_numbers if tick > 0 and left <= math.log(tick) <= right]
    panel.set_xticks([math.log(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
    panel.grid(axis="y", visible=False)
    panel.set_xlabel("perplexity per token, on a logarithmic axis: a bar's length is its nats per token")
