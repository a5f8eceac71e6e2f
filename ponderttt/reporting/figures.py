"""Figures of the table: loss against cost, the seeds' own values, and what a transductive number is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.reporting.labels import Label, place_labels
from ponderttt.reporting.rows import SeedRow, TableRow, read_seeds, read_table
from ponderttt.reporting.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    in_style,
    look_of_fast_weights,
    new_figure,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

#: Column, unit of the axis, what it is.
COSTS: tuple[tuple[str, float, str], ...] = (
    ("cost_nominal", 1.0, "nominal cost per chunk (SKIP = 1)"),
    ("cost_flops", 1e9, "counted GFLOPs per chunk"),
    ("cost_seconds", 1.0, "measured seconds per chunk"),
)


def groups_of(rows: Sequence[TableRow]) -> list[tuple[str, str]]:
    """The (corpus, model) pairs of the table, in its order; arms are compared within one of them only."""
    return list(dict.fromkeys((row.corpus, row.model) for row in rows))


def of_group(rows: Sequence[TableRow], group: tuple[str, str]) -> list[TableRow]:
    """The rows of one (corpus, model)."""
    return [row for row in rows if (row.corpus, row.model) == group]


@in_style
def pareto(table: Path | str, outputs: Sequence[Path | str]) -> None:
    """Loss against nominal, counted and measured cost; ``score_first`` arms only, within one corpus and model.

    The upper panels show all arms; where there are arms with fast weights, the lower ones show these closer.  The
    bars are the paired interval of the difference to the plain backbone, drawn at the arm's loss: the interval of the
    loss itself is dominated by how much streams differ in difficulty, which all arms share.

    Raises:
        PonderTTTError: the table is missing or damaged, or has no ``score_first`` row.
    """
    rows = [row for row in read_table(table) if row.protocol == "score_first"]
    if not rows:
        raise PonderTTTError(f"{table}: no row follows score_first, so there is nothing to plot against cost")
    names = [row.fast_weights for row in rows]
    views: list[tuple[str, list[TableRow], list[TableRow]]] = []
    for group in groups_of(rows):
        mine = of_group(rows, group)
        close = [row for row in mine if row.fast_weights != "none"]
        where = f"loss, nats per token\n{group[1]} on {group[0]}"
        views.append((f"{where}\nall arms", mine, mine))
        if close:
            views.append((f"{where}\narms with fast weights", mine, close))
    figure, axes = new_figure(len(views), 3, 12.5, 0.4 + 4.0 * len(views), share_y="row")
    for line, (where, mine, shown) in zip(axes, views, strict=True):
        for panel, (column, unit, title) in zip(line, COSTS, strict=True):
            _pareto_panel(panel, mine, np.array([getattr(row, column) / unit for row in mine]), names)
            _limits(panel, np.array([getattr(row, column) / unit for row in shown]), shown)
            panel.set_xlabel(title)
            if column == "cost_nominal":
                ticks = [action.nominal_cost for action in Action]
                panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                panel.minorticks_off()
        line[0].set_ylabel(where)
    handles = [
        _handle(colour, f"fast weights: {name}", marker=marker)
        for name in dict.fromkeys(names)
        for colour, marker in (look_of_fast_weights(name, names),)
    ]
    handles.append(_handle(GREY, "Pareto front: nothing cheaper is better", marker="", line="--"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    for line, (_, mine, shown) in zip(axes, views, strict=True):
        # Arms that a closer view names are not named twice.
        named = [row for row in shown if shown is not mine or row.fast_weights == "none"]
        for panel, (column, unit, _) in zip(line, COSTS, strict=True):
            labels = [
                Label(
                    getattr(row, column) / unit,
                    row.loss,
                    row.label,
                    look_of_fast_weights(row.fast_weights, names)[0],
                )
                for row in named
            ]
            place_labels(panel, labels)
    save(figure, outputs)


def _pareto_panel(
    panel: Axes, rows: Sequence[TableRow], cost: Float[np.ndarray, " R"], names: Sequence[str]
) -> None:
    loss = np.array([row.loss for row in rows])
    for row, x in zip(rows, cost, strict=True):
        colour, marker = look_of_fast_weights(row.fast_weights, names)
        panel.plot([x, x], _paired_bar(row), color=colour, lw=1.4, alpha=0.7, solid_capstyle="butt")
        panel.plot([x], [row.loss], marker, color=colour, ms=5)
    order = np.lexsort((loss, cost))
    best = np.minimum.accumulate(loss[order])
    front = order[np.concatenate([[True], best[1:] < best[:-1]])]
    # A staircase with its corners, so that labels can keep clear of it.
    corners = np.repeat(cost[front], 2)[1:], np.repeat(loss[front], 2)[:-1]
    panel.plot(*corners, color=GREY, ls="--", lw=1, zorder=1)


def _paired_bar(row: TableRow) -> tuple[float, float]:
    """The ends of the paired interval of the difference to the plain backbone, moved to the arm's loss."""
    if row.delta_vs_plain is None or row.delta_vs_plain_ci_low is None or row.delta_vs_plain_ci_high is None:
        return row.loss, row.loss
    return (
        row.loss + row.delta_vs_plain_ci_low - row.delta_vs_plain,
        row.loss + row.delta_vs_plain_ci_high - row.delta_vs_plain,
    )


def _limits(panel: Axes, cost: Float[np.ndarray, " R"], rows: Sequence[TableRow]) -> None:
    """Room around these arms, for their labels."""
    if cost.min() > 0 and cost.max() / cost.min() > 4:
        panel.set_xscale("log")
        panel.set_xlim(cost.min() / 1.5, cost.max() * 1.5)
    else:
        room = max(float(np.ptp(cost)), 0.02 * float(cost.max()), 1e-12)
        panel.set_xlim(cost.min() - 0.3 * room, cost.max() + 0.3 * room)
    lows, highs = zip(*(_paired_bar(row) for row in rows), strict=True)
    room = max(max(highs) - min(lows), 1e-6)
    panel.set_ylim(min(lows) - 0.15 * room, max(highs) + 0.15 * room)


@in_style
def seed_dots(table: Path | str, seeds: Path | str, outputs: Sequence[Path | str]) -> None:
    """Every seed's loss minus its reference as a dot, with the t-interval over seeds and the one over streams.

    Raises:
        PonderTTTError: a file is missing or damaged, or no row has a difference to draw.
    """
    rows = [row for row in read_table(table) if row.delta_vs_skip is not None and row.update_rate > 0]
    if not rows:
        raise PonderTTTError(
            f"{table}: no arm that updates has a reference to differ from; add the method skip to the grid"
        )
    raw = read_seeds(seeds)
    groups = groups_of(rows)
    tallest = max(len(of_group(rows, group)) for group in groups)
    figure, axes = new_figure(1, len(groups), 2.8 + 5.2 * len(groups), 1.6 + 0.36 * tallest)
    for panel, group in zip(axes[0], groups, strict=True):
        mine = of_group(rows, group)
        for y, row in enumerate(mine):
            _seed_line(
                panel, y, row, raw, look_of_fast_weights(row.fast_weights, [r.fast_weights for r in rows])[0]
            )
        panel.axvline(0, color=GREY, lw=1)
        panel.set_yticks(range(len(mine)), [row.label for row in mine])
        panel.invert_yaxis()
        panel.set_title(f"{group[1]} on {group[0]}")
        panel.set_xlabel(
            "loss minus loss of the trained adapter with 0 updates,\nnats per token (left is better)"
        )
    handles = [
        _handle(BLACK, "one seed", hollow=True),
        _handle(BLACK, "t-interval over seeds", marker="", line="-"),
        _handle(GREY, "bootstrap interval over streams", marker="", line="-", width=6),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
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


def find_row(rows: Sequence[TableRow], fast_weights: str, method: str, protocol: str) -> TableRow | None:
    """The row of this arm, within one (corpus, model)."""
    wanted = (fast_weights, method, protocol)
    return next((row for row in rows if (row.fast_weights, row.method, row.protocol) == wanted), None)


def decomposition_steps(rows: Sequence[TableRow], fast_weights: str) -> list[tuple[str, TableRow]] | None:
    """From the plain backbone to the transductive number: each step's name and the row that it leads to."""
    chain = (
        ("plain backbone", find_row(rows, "none", "plain", "score_first")),
        ("(a) training the adapter", find_row(rows, fast_weights, "skip", "score_first")),
        ("(c) test-time training", find_row(rows, fast_weights, "update_1", "score_first")),
        ("(b) leakage", find_row(rows, fast_weights, "transductive", "transductive")),
    )
    steps = [(name, row) for name, row in chain if row is not None]
    return steps if len(steps) == len(chain) else None


@in_style
def decomposition(table: Path | str, outputs: Sequence[Path | str]) -> None:
    """Perplexity from the plain backbone to the transductive arm, in three steps; one panel per fast weights.

    Raises:
        PonderTTTError: no fast weights have all of plain, skip, update_1 and transductive in the table.
    """
    rows = read_table(table)
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


def _handle(
    colour: str,
    label: str,
    marker: str = "o",
    line: Literal["none", "-", "--"] = "none",
    width: float = 1.3,
    hollow: bool = False,
) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D(
        [],
        [],
        color=colour,
        marker=marker,
        markerfacecolor="white" if hollow else colour,
        linestyle=line,
        linewidth=width,
        label=label,
        alpha=0.35 if width > 4 else 1.0,
    )
