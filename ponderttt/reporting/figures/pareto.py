"""Loss against cost of every arm, with the Pareto front."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.names import CONTROL_METHODS, FIXED_METHODS, MethodName
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
from ponderttt.reporting.numbers.columns import rows_of
from ponderttt.reporting.numbers.methods import kind_of
from ponderttt.reporting.numbers.results import Results
from ponderttt.reporting.numbers.rows import TableRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text


class Cost(NamedTuple):
    """A measure of cost of the frontier, its column in the table, the unit and title of its axis."""

    measure: str
    column: str
    unit: float
    title: str

    def of(self, row: TableRow) -> float:
        """Return the cost of an arm in the unit of the axis."""
        return getattr(row, self.column) / self.unit


class Label(NamedTuple):
    """A text for the point (x, y) of the data."""

    x: float
    y: float
    text: str
    colour: str


COSTS = (
    Cost("nominal", "cost_nominal", 1.0, "nominal cost per chunk (SKIP = 1)"),
    Cost("flops", "cost_flops", 1e9, "counted GFLOPs per chunk"),
    Cost("seconds", "cost_seconds", 1.0, "measured seconds per chunk"),
)
#: Family of methods → marker.
_FAMILIES = {"fixed": "o", "schedule": "s", "random": "X", "policy": "^", "oracle": "*"}


@in_style
def pareto(results: Results, outputs: Sequence[Path | str]) -> None:
    """Draw loss against nominal, counted and measured cost of ``score_first`` arms, a row per corpus and model.

    Labels name the backbone with and without context, and the arms on the front.  Their bars are the paired interval of
    the difference to the plain backbone, drawn at the arm's loss.  The interval of the loss itself mostly shows how much
    streams differ in difficulty, which is the same for all arms.

    Raises:
        PonderTTTError: the table has no ``score_first`` row.
    """
    groups = []
    for corpus, model, group in results.without_controls.groups():
        rows = [
            row
            for row in rows_of(TableRow, group.table)
            if row.protocol == "score_first" and row.name.base not in CONTROL_METHODS
        ]
        if rows:
            groups.append((f"{model} on {corpus}", rows, group.frontier[group.frontier.on_front]))
    if not groups:
        raise PonderTTTError(
            f"{results.path}: no row follows score_first, so there is nothing to plot against cost"
        )
    figure, axes = new_figure(len(groups), 3, 12.5, 0.9 + 4.6 * len(groups), share_y="row")
    legend_above(figure, _handles([row for _, rows, _ in groups for row in rows]))
    labelled = []
    for line, (title, rows, fronts) in zip(axes, groups, strict=True):
        for panel, cost in zip(line, COSTS, strict=True):
            of_measure = fronts[fronts.cost_measure == cost.measure]
            keys = set(zip(of_measure.fast_weights, of_measure.method, strict=True))
            front = [row for row in rows if (row.fast_weights, row.method) in keys]
            named = [row for row in rows if row.fast_weights == "none" or row in front]
            _panel(panel, rows, named, front, cost)
            _limits(panel, rows, cost)
            panel.set_xlabel(cost.title)
            if cost.measure == "nominal":
                ticks = [action.nominal_cost for action in Action]
                panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            labelled.append((panel, named, cost))
        line[0].set_ylabel(f"loss, nats per token\n{title}")
    for panel, named, cost in labelled:
        low, high = panel.get_ylim()
        labels = [
            Label(cost.of(row), row.loss, row.label, colour_of_fast_weights(row.fast_weights, ()))
            for row in named
            if low <= row.loss <= high
        ]
        place_labels(figure, panel, labels)
    save(figure, outputs)


def place_labels(figure: Figure, panel: Axes, labels: Sequence[Label]) -> list[Text]:
    """Write each label beside its point, moved up or down until it is clear of points, lines and other labels.

    The limits of the panel must be final.
    """
    from adjustText import adjust_text

    figure.draw_without_rendering()
    to_pixels, to_data = panel.transData, panel.transData.inverted()
    middle, gap = panel.bbox.x0 + panel.bbox.width / 2, figure.dpi / 7
    texts = []
    for label in labels:
        x, y = to_pixels.transform((label.x, label.y))
        # Towards the middle of the panel, where there is room.
        side = 1 if x < middle else -1
        place = to_data.transform((x + side * gap, y))
        texts.append(
            panel.text(
                place[0],
                place[1],
                label.text,
                ha="left" if side > 0 else "right",
                va="center",
                color=label.colour,
                fontsize=8.5,
                in_layout=False,
            )
        )
    drawn = [
        corners if line.get_linestyle() == "None" else _along(corners, gap / 2)
        for line in panel.lines
        for corners in (to_pixels.transform(line.get_xydata()),)
    ]
    # A limit on iterations, not on time, so that the same table gives the same figure.
    adjust_text(
        texts,
        *to_data.transform(np.concatenate(drawn)).T,
        target_x=[label.x for label in labels],
        target_y=[label.y for label in labels],
        avoid_self=False,
        prevent_crossings=False,
        expand=(1.02, 1.3),
        force_text=(0.2, 0.4),
        force_pull=0.0,
        iter_lim=300,
        ax=panel,
        arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.5, "shrinkB": 3},
        min_arrow_len=1.5 * gap,
    )
    return texts


def _along(corners: Float[np.ndarray, "K 2"], step: float) -> Float[np.ndarray, "P 2"]:
    """Return points every ``step`` along the lines between corners."""
    pieces = [corners[:1]]
    for begin, end in itertools.pairwise(corners):
        share = np.linspace(0, 1, 2 + int(np.hypot(*(end - begin)) / step))
        pieces.append(begin + share[1:, None] * (end - begin))
    return np.concatenate(pieces)


def _family(method: MethodName) -> str:
    if method.is_oracle:
        return "oracle"
    if method.base in ("random", "schedule"):
        return method.base
    return "fixed" if method.base in FIXED_METHODS or method.context is not None else "policy"


def _panel(
    panel: Axes, rows: Sequence[TableRow], named: Sequence[TableRow], front: Sequence[TableRow], cost: Cost
) -> None:
    for row in rows:
        colour = colour_of_fast_weights(row.fast_weights, [other.fast_weights for other in rows])
        x, strong = cost.of(row), row in named
        if strong:
            panel.plot([x, x], _paired_bar(row), color=colour, lw=1.2, alpha=0.4, solid_capstyle="butt")
        panel.plot(
            [x],
            [row.loss],
            "s" if row.fast_weights == "none" else _FAMILIES[_family(row.name)],
            color=colour,
            mfc="white" if "+" in row.fast_weights else colour,
            ms=6 if strong else 4.5,
            alpha=1.0 if strong else 0.45,
            zorder=3 if strong else 2,
        )
    if front:
        x, loss = np.array(sorted((cost.of(row), row.loss) for row in front)).T
        # A staircase with its corners, which labels keep clear of.
        panel.plot(np.repeat(x, 2)[1:], np.repeat(loss, 2)[:-1], color=GREY, ls="--", lw=1, zorder=1)


def _paired_bar(row: TableRow) -> tuple[float, float]:
    """Return the ends of the paired interval of the difference to the plain backbone, moved to the arm's loss."""
    difference = row.delta_vs_plain
    if difference is None or difference.low is None or difference.high is None:
        return row.loss, row.loss
    return row.loss + difference.low - difference.value, row.loss + difference.high - difference.value


def _limits(panel: Axes, rows: Sequence[TableRow], cost: Cost) -> None:
    """Show all costs, and losses up to a little above the plain backbone's; say how many arms are above."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    x = np.array([cost.of(row) for row in rows])
    if x.min() > 0 and x.max() / x.min() > 4:
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.minorticks_off()
        panel.set_xlim(x.min() / 1.5, x.max() * 1.5)
    else:
        room = max(float(np.ptp(x)), 0.02 * float(x.max()), 1e-12)
        panel.set_xlim(x.min() - 0.15 * room, x.max() + 0.15 * room)
    loss = np.array([row.loss for row in rows])
    plain = [row.loss for row in rows if row.fast_weights == "none"]
    top = max(plain) if plain else float(loss.max())
    room = max(top - float(loss.min()), 1e-6)
    panel.set_ylim(loss.min() - 0.12 * room, top + 0.25 * room)
    above = int((loss > top + 0.25 * room).sum())
    if above:
        text = f"↑ {above} arms above"
        panel.text(
            0.99, 0.99, text, transform=panel.transAxes, ha="right", va="top", fontsize=8.5, color=GREY
        )


def _handles(rows: Sequence[TableRow]) -> list[Line2D]:
    names = [row.fast_weights for row in rows]
    kinds = list(dict.fromkeys(kind_of(name) for name in names))
    handles = [
        handle(colour_of_fast_weights(kind, names), "backbone" if kind == "none" else kind, marker="s")
        for kind in kinds
    ]
    if any("+" in name for name in names):
        handles.append(handle(BLACK, "with context", marker="s", hollow=True))
    families = {_family(row.name) for row in rows if row.fast_weights != "none"}
    handles += [handle(GREY, name, marker=marker) for name, marker in _FAMILIES.items() if name in families]
    handles.append(handle(GREY, "Pareto front", marker="", line="--"))
    return handles
