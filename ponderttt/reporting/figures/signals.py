"""Which features predict the gain of an update: the strongest rank correlations of each kind of fast weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ponderttt.errors import PonderTTTError
from ponderttt.reporting.figures.style import (
    BLUE,
    GREY,
    VERMILLION,
    handle,
    in_style,
    legend_above,
    panel_grid,
    save,
)
from ponderttt.reporting.numbers.rows import SignalRow, read_signals, without_control_corpora
from ponderttt.reporting.numbers.signals import strongest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Features that are shown, strongest first.
SHOWN = 12


@in_style
def signals(table: Path | str, path: Path | str, outputs: Sequence[Path | str]) -> None:
    """Rank correlation of features with the gain of UPDATE_1 at the next chunk, with its interval over streams.

    Of all features the strongest are shown; open marks are the correlation with the gain of UPDATE_4, crosses that of
    ranks within each stream.

    Args:
        table: ``paper_table.csv``, beside it the manifest.
        path: ``signals.csv``.
        outputs: files to write, the suffix decides the format.

    Raises:
        PonderTTTError: a file is missing or damaged, or no oracle wrote down its look-ahead.
    """
    panels: dict[tuple[str, str, str], list[SignalRow]] = {}
    for row in without_control_corpora(table, read_signals(path)):
        panels.setdefault((row.corpus, row.model, row.fast_weights), []).append(row)
    if not panels:
        raise PonderTTTError(f"{path}: no signal was read; add greedy_oracle to grid.methods")
    figure, axes = panel_grid(len(panels), 3, 4.1, 0.7 + 0.2 * SHOWN, 0.6)
    for panel, ((corpus, model, fast_weights), rows) in zip(axes, panels.items(), strict=True):
        _panel(panel, rows)
        panel.set_title(f"{fast_weights}\n{model} on {corpus}", fontsize=9)
    figure.supxlabel("rank correlation with the gain of an update on the next chunk", fontsize=9)
    handles = [
        handle(BLUE, "gain of UPDATE_1: base features"),
        handle(VERMILLION, "advanced features"),
        handle(GREY, "gain of UPDATE_4", marker="d", hollow=True),
        handle(GREY, "gain of UPDATE_1, ranks within each stream", marker="x"),
    ]
    legend_above(figure, handles)
    save(figure, outputs)


def _panel(panel: Axes, rows: Sequence[SignalRow]) -> None:
    from ponderttt.features.table import BASE, NAMES

    of_four = {row.feature: row.rho for row in rows if row.action == "UPDATE_4"}
    shown = strongest(rows)[:SHOWN]
    for y, row in enumerate(shown):
        colour = BLUE if row.feature in NAMES[:BASE] else VERMILLION
        if row.rho_ci_low is not None and row.rho_ci_high is not None:
            panel.plot([row.rho_ci_low, row.rho_ci_high], [y, y], color=colour, lw=3, alpha=0.35)
        for value, marker, edge, face in (
            (row.rho, "o", colour, colour),
            (of_four.get(row.feature), "d", GREY, "none"),
            (row.rho_within, "x", GREY, GREY),
        ):
            if value is not None:
                panel.plot([value], [y], marker, mec=edge, mfc=face, ms=5.5)
    panel.axvline(0, color=GREY, lw=1)
    panel.set_yticks(range(len(shown)), [row.feature for row in shown], fontsize=8.5)
    panel.set_ylim(SHOWN - 0.5, -0.5)
    panel.set_xlim(-1, 1)
