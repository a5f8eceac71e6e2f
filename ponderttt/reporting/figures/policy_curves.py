"""Training of policies with PPO: reward, cost and its limit, the controller's λ, and statistics of the updates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.reporting.figures.logs import Lines, read_log
from ponderttt.reporting.figures.style import (
    ACTION_COLOURS,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    handle,
    in_style,
    legend_above,
    new_figure,
    save,
)
from ponderttt.reporting.numbers.methods import rank_of_fast_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Title of each panel; key in the log, colour and legend of each of its lines.
_PANELS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("reward, nats per token", (("reward", BLUE, "reward"),)),
    ("cost per chunk, × SKIP", (("cost", VERMILLION, "cost"), ("limit", BLACK, "limit"))),
    (
        "λ and its parts",
        (("lambda", BLACK, "λ"), ("p", ORANGE, "P"), ("i", GREEN, "I"), ("d", PURPLE, "D")),
    ),
    (
        "entropy (nats), KL × 10, clipped share",
        (("entropy", BLUE, "entropy"), ("approx_kl", ORANGE, "KL × 10"), ("clipfrac", GREY, "clipped")),
    ),
    (
        "explained variance of the critics",
        (
            ("explained_variance", BLUE, "of reward"),
            ("cost_explained_variance", VERMILLION, "of cost"),
        ),
    ),
)
_SCALES = {"approx_kl": 10.0}


def read_policy_log(path: Path | str) -> Lines:
    """Read the iterations of one ``log.jsonl`` of PPO; raises as :func:`~ponderttt.reporting.figures.logs.read_log`."""
    return read_log(path, lambda line: [key for _, entries in _PANELS for key, _, _ in entries])


@in_style
def policy_curves(logs: Sequence[Path | str], outputs: Sequence[Path | str]) -> None:
    """Draw a column for each kind of fast weights; seeds are lines of the same colour.

    Args:
        logs: ``…/policies/{model}/{fast_weights}/{policy}/seed-{seed}/log.jsonl`` of PPO.
        outputs: files to write; the suffix decides the format.

    Raises:
        PonderTTTError: no log was given, or one is damaged.
    """
    if not logs:
        raise PonderTTTError("no log of a policy was given: the grid has no method ppo")
    columns: dict[tuple[str, ...], list[Lines]] = {}
    for log in sorted(map(Path, logs), key=lambda p: (p.parts[-5], rank_of_fast_weights(p.parts[-4]), p)):
        columns.setdefault(log.parts[-5:-2], []).append(read_policy_log(log))
    rows = len(_PANELS) + 1
    figure, axes = new_figure(rows, len(columns), 4.1 * len(columns), 0.6 + 2.1 * rows)
    for column, ((model, fast_weights, policy), runs) in enumerate(columns.items()):
        for row, (title, entries) in enumerate(_PANELS):
            _lines(axes[row, column], runs, entries)
            axes[row, column].set_title(title, loc="left", fontsize=9)
        _shares(axes[-1, column], runs)
        axes[-1, column].set_title("shares of the actions", loc="left", fontsize=9)
        axes[-1, column].set_xlabel("iteration")
        axes[0, column].set_title(
            f"{fast_weights}: {policy} on {model}\n{_PANELS[0][0]}", loc="left", fontsize=9
        )
    actions = zip(Action, ACTION_COLOURS, strict=True)
    legend_above(figure, [handle(colour, action.name, marker="s") for action, colour in actions])
    save(figure, outputs)


def _lines(panel: Axes, runs: Sequence[Lines], entries: Sequence[tuple[str, str, str]]) -> None:
    panel.locator_params(axis="x", integer=True)
    for lines in runs:
        iteration = [line["iteration"] for line in lines]
        for key, colour, _ in entries:
            values = [_SCALES.get(key, 1.0) * line[key] for line in lines]
            panel.plot(iteration, values, color=colour, lw=1.1, alpha=0.8)
    if len(entries) > 1:
        named = [handle(colour, words, marker="", line="-") for _, colour, words in entries]
        panel.legend(handles=named, fontsize=7, ncols=len(named), loc="best")


def _shares(panel: Axes, runs: Sequence[Lines]) -> None:
    """Stack the shares of the actions, averaged over seeds."""
    shortest = min(map(len, runs))
    shares = np.array(
        [
            [[line[f"share_{action.name.lower()}"] for line in lines[:shortest]] for action in Action]
            for lines in runs
        ]
    ).mean(axis=0)
    panel.stackplot([line["iteration"] for line in runs[0][:shortest]], shares, colors=ACTION_COLOURS)
    panel.set_ylim(0, 1)
    panel.locator_params(axis="x", integer=True)
