"""How the figures look: one colour per fast weights or method, PNG and vector files by atomic rename."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec

import numpy as np

from ponderttt.provenance import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe & Ito's palette, told apart under every common colour blindness.
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
_FAST_WEIGHTS = {"none": (BLACK, "s"), "ttt": (BLUE, "o"), "lora": (VERMILLION, "^"), "memory": (GREEN, "D")}
_METHODS = {
    "plain": (BLACK, "."),
    "context_1": (GREEN, "s"),
    "skip": (GREY, "D"),
    "random": (ORANGE, "X"),
    "update_1": (SKY, "o"),
    "update_2": (BLUE, "^"),
    "update_4": (PURPLE, "v"),
}
_SPARE = (GREEN, PURPLE, ORANGE, SKY, VERMILLION, BLUE)
_SPARE_MARKERS = ("P", "*", "h", "<", ">", "p")

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


def in_style(draw: Callable[P, None]) -> Callable[P, None]:
    """Run a drawing function under :data:`SETTINGS`; matplotlib is imported when it runs."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> None:
        from matplotlib import rc_context

        with rc_context(SETTINGS):  # type: ignore[arg-type]
            draw(*args, **kwargs)

    return styled


def _look(known: dict[str, tuple[str, str]], name: str, all_names: Iterable[str]) -> tuple[str, str]:
    """Colour and marker; names without a look of their own share the spare ones in alphabetical order."""
    if name in known:
        return known[name]
    at = [other for other in sorted(set(all_names)) if other not in known].index(name)
    return _SPARE[at % len(_SPARE)], _SPARE_MARKERS[at % len(_SPARE_MARKERS)]


def look_of_fast_weights(fast_weights: str, all_names: Iterable[str]) -> tuple[str, str]:
    """Colour and marker of a kind of fast weights."""
    return _look(_FAST_WEIGHTS, fast_weights, all_names)


def look_of_method(method: str, all_names: Iterable[str]) -> tuple[str, str]:
    """Colour and marker of a method, where a panel holds one kind of fast weights."""
    return _look(_METHODS, method, all_names)


def new_figure(
    rows: int, columns: int, width: float, height: float, *, share_y: Literal["none", "row"] = "none"
) -> tuple[Figure, np.ndarray]:
    """A figure of ``rows`` × ``columns`` panels, ``width`` × ``height`` inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=share_y)


def save(figure: Figure, outputs: Sequence[Path | str]) -> None:
    """Write the figure to every path; the suffix (png, svg, pdf) decides the format, and no date goes inside.

    Raises:
        PonderTTTError: the disk is full.
    """
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    for output in map(Path, outputs):
        kind = output.suffix.lstrip(".")
        with atomic_path(output) as temporary:
            figure.savefig(temporary, format=kind, dpi=150, metadata=undated.get(kind))
