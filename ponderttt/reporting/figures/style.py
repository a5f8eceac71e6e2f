"""The look of the figures: colours and markers of fast weights and methods, legends, and files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar

import numpy as np
import pandas as pd

from ponderttt.files.atomic import atomic_path
from ponderttt.names import MethodName
from ponderttt.reporting.numbers.methods import kind_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

#: Okabe & Ito's palette, safe for the common colour blindnesses.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#777777"
_KINDS = {"none": BLACK, "ttt": BLUE, "lora": VERMILLION, "suffix": PURPLE, "memory": GREEN}
#: Colour and marker of a method in a panel of one kind of fast weights.
_METHODS = {
    "fixed": (BLACK, "o"),
    "skip": (GREY, "D"),
    "update_1": (SKY, "o"),
    "update_2": (BLUE, "^"),
    "update_4": (BLACK, "v"),
    "schedule": (BLACK, "s"),
    "random": (GREY, "X"),
    "entropy": (BLUE, "^"),
    "loss": (GREEN, "s"),
    "reconstruction": (ORANGE, "D"),
    "adaptive": (PURPLE, "v"),
    "regression": (ORANGE, "P"),
    "gumbel_hard": (PURPLE, "h"),
    "gumbel_soft": (PURPLE, "H"),
    "ppo": (GREEN, "p"),
    "greedy_oracle": (VERMILLION, "*"),
    "exhaustive_oracle": (VERMILLION, "P"),
}
_SPARE = (SKY, YELLOW, GREEN, PURPLE, ORANGE, BLUE)
_SPARE_MARKERS = ("p", "h", "<", ">", "8", "d")
#: From SKIP to UPDATE_4, darker for more updates.
ACTION_COLOURS = ("#e8e8e8", "#a6cee3", "#3f8fc4", "#0b3c6f")

SETTINGS = {
    "font.size": 9,
    "legend.fontsize": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "ponderttt",
    "svg.fonttype": "path",
}


P = ParamSpec("P")
LineStyle = Literal["none", "-", "--", ":", "-."]


def in_style(draw: Callable[P, None]) -> Callable[P, None]:
    """Run a drawing function under :data:`SETTINGS`; matplotlib is imported when it runs."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> None:
        from matplotlib import rc_context

        with rc_context(SETTINGS):  # type: ignore[arg-type]
            draw(*args, **kwargs)

    return styled


def _spare(name: str, all_names: Iterable[str], known: Iterable[str]) -> int:
    """Return the place of a name without its own look, in alphabetical order."""
    return sorted({*all_names, name} - set(known)).index(name)


def colour_of_fast_weights(fast_weights: str, all_names: Iterable[str]) -> str:
    """Return the colour of a kind of fast weights, with or without context."""
    kind = kind_of(fast_weights)
    if kind in _KINDS:
        return _KINDS[kind]
    return _SPARE[_spare(kind, map(kind_of, all_names), _KINDS) % len(_SPARE)]


def look_of_method(method: str, all_names: Iterable[str]) -> tuple[str, str]:
    """Return the colour and marker of a method or policy at any budget."""
    base = _base(method)
    if base in _METHODS:
        return _METHODS[base]
    at = _spare(base, map(_base, all_names), _METHODS)
    return _SPARE[at % len(_SPARE)], _SPARE_MARKERS[at % len(_SPARE_MARKERS)]


def _base(method: str) -> str:
    # The frontier has policies that are no method.
    return method if method in _METHODS else MethodName.parse(method).base


def handle(
    colour: str,
    label: str,
    marker: str = "o",
    line: LineStyle = "none",
    width: float = 1.3,
    hollow: bool = False,
) -> Line2D:
    """Return an entry of a legend."""
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


def legend_above(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Add a legend of the whole figure, with as many columns as fit into its width."""
    # In points: the sign before a text, and each letter.
    widest = 45 + 5.2 * max(len(str(entry.get_label())) for entry in handles)
    columns = int(72 * figure.get_figwidth() / widest)
    figure.legend(handles=handles, loc="outside upper center", ncols=max(1, min(columns, len(handles))))


def panel_grid(
    count: int, columns: int, panel_width: float, panel_height: float, extra_height: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``count`` panels in rows of at most ``columns``; sizes in inches."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = new_figure(rows, columns, panel_width * columns, panel_height * rows + extra_height)
    panels = list(axes.flat)
    for spare in panels[count:]:
        spare.remove()
    return figure, panels[:count]


PanelKey = tuple[str, str, str]
T = TypeVar("T")


def by_panel(frame: pd.DataFrame) -> dict[PanelKey, pd.DataFrame]:
    """Split rows by corpus, model and fast weights; in their order."""
    return dict(iter(frame.groupby(["corpus", "model", "fast_weights"], sort=False)))


def titled_panels(
    content: Mapping[PanelKey, T], panel_height: float, extra_height: float = 0.0
) -> tuple[Figure, Iterator[tuple[Axes, T]]]:
    """Return a figure with a titled panel for each corpus, model and fast weights, and the panels with their content."""
    figure, panels = panel_grid(len(content), 3, 4.1, panel_height, extra_height)
    for panel, (corpus, model, fast_weights) in zip(panels, content, strict=True):
        panel.set_title(f"{fast_weights}\n{model} on {corpus}", fontsize=9)
    return figure, zip(panels, content.values(), strict=True)


def new_figure(
    rows: int, columns: int, width: float, height: float, *, share_y: Literal["none", "row"] = "none"
) -> tuple[Figure, np.ndarray]:
    """Return a figure of ``rows`` × ``columns`` panels, ``width`` × ``height`` inches; it needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=share_y)


def save(figure: Figure, outputs: Sequence[Path | str]) -> None:
    """Write the figure to every path, without a date; the suffix (png, svg, pdf) decides the format.

    Raises:
        PonderTTTError: the disk is full.
    """
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    for output in map(Path, outputs):
        kind = output.suffix.lstrip(".")
        with atomic_path(output) as temporary:
            figure.savefig(temporary, format=kind, dpi=150, metadata=undated.get(kind))
