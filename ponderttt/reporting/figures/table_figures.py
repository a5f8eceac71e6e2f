"""Figures of the table: the values of single seeds, and the parts of a transductive number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ponderttt.errors import PonderTTTError
from ponderttt.reporting.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    by_panel,
    colour_of_fast_weights,
    handle,
    in_style,
    legend_above,
    new_figure,
    save,
    titled_panels,
)
from ponderttt.reporting.numbers.columns import Estimate, rows_of
from ponderttt.reporting.numbers.results import Results
from ponderttt.reporting.numbers.rows import TableRow, decomposition_steps, gain_of_training

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: Columns that name an arm.
_ARM = ["corpus", "model", "fast_weights", "method", "protocol"]


@in_style
def seed_dots(results: Results, outputs: Sequence[Path | str]) -> None:
    """Draw the difference of every seed as a dot, with the intervals over seeds and over streams.

    There is a panel for each kind of fast weights.  Methods are at the budget of the grid.

    Raises:
        PonderTTTError: no row has a difference to draw.
    """
    table = results.without_controls.table
    rows = table[table.delta_vs_skip.notna() & (table.update_rate > 0) & ~table.method.str.contains("@")]
    if rows.empty:
        raise PonderTTTError(
            f"{results.path}: no arm that updates has a baseline; add the method skip to the grid"
        )
    panels = by_panel(rows)
    tallest = max(map(len, panels.values()))
    seeds = results.seeds.dropna(subset="delta_vs_skip").groupby(_ARM).delta_vs_skip
    values = {arm: differences.to_numpy() for arm, differences in seeds}
    figure, drawn = titled_panels(panels, 1.0 + 0.25 * tallest, 0.4)
    for panel, mine in drawn:
        _seed_panel(panel, mine, values, colour_of_fast_weights(mine.fast_weights.iloc[0], rows.fast_weights))
        panel.set_ylim(tallest - 0.5, -0.5)
    figure.supxlabel(
        "delta_vs_skip: loss minus that of 0 updates, nats per token (left is better)", fontsize=9
    )
    handles = [
        handle(BLACK, "one seed", hollow=True),
        handle(BLACK, "t-interval over seeds", marker="", line="-"),
        handle(GREY, "interval over streams", marker="", line="-", width=6),
    ]
    legend_above(figure, handles)
    save(figure, outputs)


def _seed_panel(
    panel: Axes, rows: pd.DataFrame, values: dict[tuple[str, ...], np.ndarray], colour: str
) -> None:
    y = np.arange(len(rows))
    panel.hlines(y, rows.delta_ci_low, rows.delta_ci_high, color=colour, lw=7, alpha=0.25)
    panel.hlines(y, rows.delta_seed_ci_low, rows.delta_seed_ci_high, color=colour, lw=1.3)
    for at, arm in zip(y, rows[_ARM].itertuples(index=False, name=None), strict=True):
        mine = values[arm]
        # Slightly apart, so that equal seeds show as several.
        spread = np.linspace(-0.15, 0.15, len(mine)) if len(mine) > 1 else 0.0
        panel.plot(
            mine, at + spread * np.ones(len(mine)), "o", ms=5, mfc="white", mec=colour, mew=1.3, ls="none"
        )
    panel.axvline(0, color=GREY, lw=1)
    panel.set_yticks(y, rows.method.tolist())
    panel.locator_params(axis="x", nbins=5)


@in_style
def decomposition(results: Results, outputs: Sequence[Path | str]) -> None:
    """Draw the three steps from the backbone's perplexity to the transductive one, a panel per fast weights.

    Raises:
        PonderTTTError: no fast weights have all of skip, update_1 and transductive, and their context, in the table.
    """
    chains = []
    for corpus, model, group in results.without_controls.groups():
        rows = rows_of(TableRow, group.table)
        for fast_weights in dict.fromkeys(row.fast_weights for row in rows):
            steps = decomposition_steps(rows, fast_weights)
            if steps:
                chains.append((f"{fast_weights}: {model} on {corpus}", steps))
    if not chains:
        raise PonderTTTError(
            f"{results.path}: no fast weights have plain, skip, update_1 and transductive; add these methods to the grid"
        )
    figure, axes = new_figure(len(chains), 1, 8.5, 0.5 + 3.0 * len(chains))
    for panel, (title, steps) in zip(axes[:, 0], chains, strict=True):
        _waterfall(panel, steps)
        panel.set_title(title)
    save(figure, outputs)


def _waterfall(panel: Axes, steps: Sequence[tuple[str, TableRow]]) -> None:
    """Draw floating bars; the two ends are points, since the axis does not begin at zero."""
    from matplotlib.ticker import MaxNLocator

    names, rows = zip(*steps, strict=True)
    nats = [row.loss for row in rows]
    differences = (gain_of_training(rows[1]), rows[2].delta_vs_skip, None)
    panel.plot(nats[0], 0, "s", color=BLACK, ms=8)
    texts = [f"perplexity {rows[0].perplexity:.2f}"]
    for y, colour, known in zip((1, 2, 3), (BLUE, GREEN, VERMILLION), differences, strict=True):
        panel.barh(y, nats[y] - nats[y - 1], left=nats[y - 1], color=colour, height=0.6)
        panel.plot([nats[y - 1]] * 2, [y - 1, y + 0.3], color=GREY, lw=0.8, zorder=0)
        step = known or Estimate(nats[y] - nats[y - 1])
        texts.append(f"{step.text()} nats: perplexity {rows[y].perplexity:.2f}")
    panel.plot([nats[3]] * 2, [3, 4], color=GREY, lw=0.8, zorder=0)
    panel.plot(nats[3], 4, "s", color=GREY, ms=8)
    texts.append(f"perplexity {rows[3].perplexity:.2f}: leaks labels, is no result")
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
    panel.set_xlabel("perplexity per token (logarithmic axis: the length of a bar is in nats per token)")
