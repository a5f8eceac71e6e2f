"""Decisions of policies: how often each action, where in the stream, and whether training percentiles hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.names import BUDGETED_METHODS, CALIBRATED_METHODS
from ponderttt.reporting.figures.style import (
    ACTION_COLOURS,
    BLACK,
    GREY,
    PanelKey,
    handle,
    in_style,
    legend_above,
    look_of_method,
    new_figure,
    save,
    titled_panels,
)
from ponderttt.reporting.numbers.arms import Arm
from ponderttt.reporting.numbers.statistics import uniform_gap

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def _panels(arms: Sequence[Arm], methods: Sequence[str]) -> dict[PanelKey, list[Arm]]:
    """Return the arms of these methods, at the budget of the grid, by corpus, model and fast weights."""
    panels: dict[PanelKey, list[Arm]] = {}
    for arm in arms:
        if arm.key.method in methods and arm.key.fast_weights != "none":
            panels.setdefault((arm.key.corpus, arm.key.model, arm.key.fast_weights), []).append(arm)
    return panels


@in_style
def allocation(arms: Sequence[Arm], outputs: Sequence[Path | str]) -> None:
    """Draw the shares of the four actions of every policy, and its mean nominal cost at each chunk of the stream.

    Black ticks are the shares that a rule aims at: the ranks from which each update begins.  A signal that is distributed
    as on training streams meets them.

    Args:
        arms: arms of the table, without control corpora.
        outputs: files to write; the suffix decides the format.

    Raises:
        PonderTTTError: no arm has a policy.
    """
    panels = _panels(arms, ("schedule", *BUDGETED_METHODS))
    if not panels:
        raise PonderTTTError(
            "no arm follows a policy, so there is no allocation to draw; add one to grid.methods"
        )
    tallest = max(map(len, panels.values()))
    figure, axes = new_figure(len(panels), 2, 11.0, 0.7 + (0.85 + 0.2 * tallest) * len(panels))
    for (left, right), ((corpus, model, fast_weights), mine) in zip(axes, panels.items(), strict=True):
        _bars(left, mine)
        _along_the_stream(right, mine)
        left.set_title(f"{fast_weights}: {model} on {corpus}", fontsize=9)
    axes[-1, 0].set_xlabel("share of chunks")
    axes[-1, 1].set_xlabel("chunk of the stream")
    squares = [
        handle(colour, action.name, marker="s") for action, colour in zip(Action, ACTION_COLOURS, strict=True)
    ]
    ticks = handle(BLACK, "target share", marker="|")
    legend_above(figure, [*squares, ticks])
    save(figure, outputs)


def _bars(panel: Axes, arms: Sequence[Arm]) -> None:
    for y, arm in enumerate(arms):
        edges = np.cumsum([0.0, *((arm.measures["action"] == action).mean() for action in Action)])
        for left, right, colour in zip(edges[:-1], edges[1:], ACTION_COLOURS, strict=True):
            panel.barh(y, right - left, left=left, color=colour, height=0.7)
        # Random decisions have cuts too: the shares with which they draw.
        if arm.cuts is not None:
            panel.plot(arm.cuts, [y] * len(arm.cuts), "|", color=BLACK, ms=13, mew=1.5)
    panel.set_yticks(range(len(arms)), [arm.key.method for arm in arms])
    panel.invert_yaxis()
    panel.set_xlim(0, 1)
    panel.grid(axis="y", visible=False)


def _along_the_stream(panel: Axes, arms: Sequence[Arm]) -> None:
    for arm in arms:
        chunks = arm.chunks
        count = np.bincount(chunks.chunk_index)
        cost = np.bincount(chunks.chunk_index, arm.measures["cost_nominal"].mean(axis=0)) / np.maximum(
            count, 1
        )
        shown = np.flatnonzero(count >= min(3, len(chunks.streams)))
        colour, marker = look_of_method(arm.key.method, [other.key.method for other in arms])
        dots = marker if len(shown) <= 40 else ""
        panel.plot(
            shown,
            cost[shown],
            marker=dots,
            color=colour,
            ms=4.5,
            lw=1.2,
            ls=":" if arm.name.is_oracle else "-",
            label=arm.key.method,
        )
    panel.locator_params(axis="x", integer=True)
    panel.set_ylabel("mean nominal cost")
    panel.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)


@in_style
def calibration(arms: Sequence[Arm], outputs: Sequence[Path | str]) -> None:
    """Draw whether percentiles of training streams hold on held-out streams: distributions of the ranks of signals.

    On the diagonal they hold.  Below it, held-out chunks rank higher than training chunks, so the rule updates more than
    its calibration intends, until the budget stops it.  Above it, it updates less.

    Args:
        arms: arms of the table, without control corpora.
        outputs: files to write; the suffix decides the format.

    Raises:
        PonderTTTError: no arm follows a signal rule.
    """
    ranked = [arm for arm in arms if np.isfinite(arm.measures["gate_rank"]).any()]
    panels = _panels(ranked, CALIBRATED_METHODS)
    if not panels:
        raise PonderTTTError(
            "no arm follows a signal rule, so there is no calibration to draw; add entropy to grid.methods"
        )
    figure, drawn = titled_panels(panels, 4.2)
    for panel, mine in drawn:
        panel.plot([0, 1], [0, 1], color=GREY, lw=1)
        for arm in mine:
            rank = np.sort(arm.measures["gate_rank"][np.isfinite(arm.measures["gate_rank"])])
            colour, _ = look_of_method(arm.key.method, CALIBRATED_METHODS)
            label = f"{arm.key.method}: largest gap {uniform_gap(rank):.2f}"
            steps = np.arange(len(rank) + 1) / len(rank)
            panel.step([0, *rank, 1], [*steps, 1], where="post", color=colour, lw=1.4, label=label)
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8.5)
    figure.supxlabel("percentile among training chunks", fontsize=9)
    figure.supylabel("share of held-out chunks at or below", fontsize=9)
    save(figure, outputs)
