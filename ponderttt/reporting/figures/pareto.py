"""Loss against cost of every arm, and the arms that nothing cheaper beats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.names import CONTROL_METHODS, FIXED_METHODS, split_method
from ponderttt.reporting.figures.labels import Label, place_labels
from ponderttt.reporting.figures.style import (
    BLACK,
    GREY,
    colour_of_fast_weights,
    handle,
    in_style,
    legend_above,
    new_figure,
    save,
)
from ponderttt.reporting.numbers.methods import ORACLES, kind_of
from ponderttt.reporting.numbers.rows import (
    FRONTIER,
    FrontierRow,
    TableRow,
    groups_of,
    of_group,
    read_frontier,
    read_table,
    without_control_corpora,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

#: Cost measure of the frontier, column of the table, unit of the axis, what it is.
COSTS: tuple[tuple[str, str, float, str], ...] = (
    ("nominal", "cost_nominal", 1.0, "nominal cost per chunk (SKIP = 1)"),
    ("flops", "cost_flops", 1e9, "counted GFLOPs per chunk"),
    ("seconds", "cost_seconds", 1.0, "measured seconds per chunk"),
)
#: Family of methods → marker.
_FAMILIES = {"fixed": "o", "schedule": "s", "random": "X", "rule": "^", "oracle": "*"}


@in_style
def pareto(table: Path | str, outputs: Sequence[Path | str]) -> None:
    """Loss against nominal, counted and measured cost; ``score_first`` arms only, within one corpus and model.

    Named are the backbone with and without context, and the arms on the front.  Their bars are the paired interval of
    the difference to the plain backbone, drawn at the arm's loss: the interval of the loss itself is dominated by how
    much streams differ in difficulty, which all arms share.

    Raises:
        PonderTTTError: a file is missing or damaged, or has no ``score_first`` row.
    """
    rows = [
        row
        for row in without_control_corpora(table, read_table(table))
        if row.protocol == "score_first" and split_method(row.method)[0] not in CONTROL_METHODS
    ]
    if not rows:
        raise PonderTTTError(f"{table}: no row follows score_first, so there is nothing to plot against cost")
    frontier = read_frontier(Path(table).with_name(FRONTIER))
    groups = groups_of(rows)
    figure, axes = new_figure(len(groups), 3, 12.5, 0.9 + 4.6 * len(groups), share_y="row")
    legend_above(figure, _handles(rows))
    named: list[tuple[Axes, list[TableRow], str, float]] = []
    for line, group in zip(axes, groups, strict=True):
        mine = of_group(rows, group)
        for panel, (measure, column, unit, title) in zip(line, COSTS, strict=True):
            front = _front(frontier, group, measure)
            shown = [row for row in mine if row.fast_weights == "none" or _key(row) in front]
            _panel(panel, mine, shown, front, column, unit)
            _limits(panel, mine, column, unit)
            panel.set_xlabel(title)
            if measure == "nominal":
                ticks = [action.nominal_cost for action in Action]
                panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            named.append((panel, shown, column, unit))
        line[0].set_ylabel(f"loss, nats per token\n{group[1]} on {group[0]}")
    for panel, shown, column, unit in named:
        low, high = panel.get_ylim()
        labels = [
            Label(
                getattr(row, column) / unit, row.loss, row.label, colour_of_fast_weights(row.fast_weights, ())
            )
            for row in shown
            if low <= row.loss <= high
        ]
        place_labels(panel, labels, size=8.5)
    save(figure, outputs)


def _key(row: TableRow | FrontierRow) -> tuple[str, str]:
    return row.fast_weights, row.method


def _front(frontier: Sequence[FrontierRow], group: tuple[str, str], measure: str) -> set[tuple[str, str]]:
    return {
        _key(row)
        for row in frontier
        if (row.corpus, row.model, row.cost_measure) == (*group, measure) and row.on_front
    }


def _family(method: str) -> str:
    base, _ = split_method(method)
    if base in ORACLES:
        return "oracle"
    if base in ("random", "schedule"):
        return base
    return "fixed" if base in FIXED_METHODS or base == "plain" or base.startswith("context_") else "rule"


def _panel(
    panel: Axes,
    rows: Sequence[TableRow],
    named: Sequence[TableRow],
    front: set[tuple[str, str]],
    column: str,
    unit: float,
) -> None:
    for row in rows:
        colour = colour_of_fast_weights(row.fast_weights, [other.fast_weights for other in rows])
        x, hollow = getattr(row, column) / unit, "+" in row.fast_weights
        marker = "s" if row.fast_weights == "none" else _FAMILIES[_family(row.method)]
        face = "white" if hollow else colour
        strong = row in named
        if strong:
            panel.plot([x, x], _paired_bar(row), color=colour, lw=1.2, alpha=0.4, solid_capstyle="butt")
        panel.plot(
            [x],
            [row.loss],
            marker,
            color=colour,
            mfc=face,
            ms=6 if strong else 4.5,
            alpha=1.0 if strong else 0.45,
            zorder=3 if strong else 2,
        )
    on_front = sorted((getattr(row, column) / unit, row.loss) for row in rows if _key(row) in front)
    if on_front:
        cost, loss = np.array(on_front).T
        # A staircase with its corners, so that labels can keep clear of it.
        panel.plot(np.repeat(cost, 2)[1:], np.repeat(loss, 2)[:-1], color=GREY, ls="--", lw=1, zorder=1)


def _paired_bar(row: TableRow) -> tuple[float, float]:
    """The ends of the paired interval of the difference to the plain backbone, moved to the arm's loss."""
    if row.delta_vs_plain is None or row.delta_vs_plain_ci_low is None or row.delta_vs_plain_ci_high is None:
        return row.loss, row.loss
    return (
        row.loss + row.delta_vs_plain_ci_low - row.delta_vs_plain,
        row.loss + row.delta_vs_plain_ci_high - row.delta_vs_plain,
    )


def _limits(panel: Axes, rows: Sequence[TableRow], column: str, unit: float) -> None:
    """All costs; losses up to a little above the plain backbone's, with a word on what is above."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    cost = np.array([getattr(row, column) / unit for row in rows])
    if cost.min() > 0 and cost.max() / cost.min() > 4:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.minorticks_off()
        panel.set_xlim(cost.min() / 1.5, cost.max() * 1.5)
    else:
        room = max(float(np.ptp(cost)), 0.02 * float(cost.max()), 1e-12)
        panel.set_xlim(cost.min() - 0.15 * room, cost.max() + 0.15 * room)
    loss = np.array([row.loss for row in rows])
    plain = [row.loss for row in rows if row.fast_weights == "none"]
    top = max(plain) if plain else float(loss.max())
    room = max(top - float(loss.min()), 1e-6)
    panel.set_ylim(loss.min() - 0.12 * room, top + 0.25 * room)
    above = int((loss > top + 0.25 * room).sum())
    if above:
        panel.annotate(
            f"↑ {above} arms lie above",
            (0.99, 0.99),
            xycoords="axes fraction",
            ha="right",
            va="top",
            fontsize=8.5,
            color=GREY,
        )


def _handles(rows: Sequence[TableRow]) -> list[Line2D]:
    names = [row.fast_weights for row in rows]
    kinds = list(dict.fromkeys(kind_of(name) for name in names))
    handles = [
        handle(colour_of_fast_weights(kind, names), "backbone" if kind == "none" else kind, marker="s")
        for kind in kinds
    ]
    if any("+" in name for name in names):
        handles.append(handle(BLACK, "on top of context", marker="s", hollow=True))
    families = {_family(row.method) for row in rows if row.fast_weights != "none"}
    handles += [handle(GREY, name, marker=marker) for name, marker in _FAMILIES.items() if name in families]
    handles.append(handle(GREY, "front: nothing cheaper is better", marker="", line="--"))
    return handles
