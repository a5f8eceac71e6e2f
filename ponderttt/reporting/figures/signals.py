"""Features that predict the gain of an update: the strongest rank correlations of each kind of fast weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ponderttt.errors import PonderTTTError
from ponderttt.reporting.figures.style import (
    BLUE,
    GREY,
    VERMILLION,
    by_panel,
    handle,
    in_style,
    legend_above,
    save,
    titled_panels,
)
from ponderttt.reporting.numbers.results import Results
from ponderttt.reporting.numbers.signals import strongest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Number of features to show, strongest first.
SHOWN = 12


@in_style
def signals(results: Results, outputs: Sequence[Path | str]) -> None:
    """Draw the rank correlation of features with the gain of UPDATE_1 at the next chunk, with intervals over streams.

    Open marks are the correlation with the gain of UPDATE_4, crosses that of ranks within each stream.

    Args:
        results: the result files.
        outputs: files to write; the suffix decides the format.

    Raises:
        PonderTTTError: the grid has no oracle whose records hold its look-ahead.
    """
    panels = by_panel(results.without_controls.signals)
    if not panels:
        raise PonderTTTError(f"{results.path}: it has no signals; add greedy_oracle to grid.methods")
    figure, drawn = titled_panels(panels, 0.7 + 0.2 * SHOWN, 0.6)
    for panel, rows in drawn:
        _panel(panel, rows)
    figure.supxlabel("rank correlation with the gain of an update on the next chunk", fontsize=9)
    handles = [
        handle(BLUE, "gain of UPDATE_1: base features"),
        handle(VERMILLION, "gain of UPDATE_1: advanced features"),
        handle(GREY, "gain of UPDATE_4", marker="d", hollow=True),
        handle(GREY, "gain of UPDATE_1, ranks within each stream", marker="x"),
    ]
    legend_above(figure, handles)
    save(figure, outputs)


def _panel(panel: Axes, rows: pd.DataFrame) -> None:
    from ponderttt.features.table import BASE, NAMES

    shown = strongest(rows)[:SHOWN]
    with_four = rows[rows.action == "UPDATE_4"].set_index("feature").rho.reindex(shown.feature)
    y = range(len(shown))
    colours = [BLUE if feature in NAMES[:BASE] else VERMILLION for feature in shown.feature]
    panel.hlines(y, shown.rho_ci_low, shown.rho_ci_high, colors=colours, lw=3, alpha=0.35)
    panel.scatter(shown.rho, y, c=colours, s=30, zorder=3)
    panel.plot(with_four, y, "d", mec=GREY, mfc="none", ms=5.5)
    panel.plot(shown.rho_within, y, "x", color=GREY, ms=5.5)
    panel.axvline(0, color=GREY, lw=1)
    panel.set_yticks(y, shown.feature.tolist(), fontsize=8.5)
    panel.set_ylim(SHOWN - 0.5, -0.5)
    panel.set_xlim(-1.05, 1.05)
