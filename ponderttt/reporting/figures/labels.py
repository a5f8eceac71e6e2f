"""Labels of points that keep clear of points, lines and one another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

#: Boxes are rows (left, bottom, right, top), in pixels.
Boxes = Float[np.ndarray, "K 4"]

_RADII = (9, 14, 20, 28, 38, 50, 64, 80, 100)
_ANGLES = np.deg2rad(np.arange(0, 360, 22.5))
#: Where along a leader, from the point to the middle of the label, it is checked.
_LEADER = np.linspace(0.1, 0.8, 8)


class Label(NamedTuple):
    """A text for the point (x, y) of the data."""

    x: float
    y: float
    text: str
    colour: str


def place_labels(axes: Axes, labels: Sequence[Label], size: float = 8.0) -> Boxes:
    """Write each label near its point; one that must stand far off gets a thin line back.

    Places on widening circles are tried and the best is taken.  The limits of the axes must be final.

    Returns:
        Where the labels stand, in pixels, in the order of ``labels``.
    """
    figure = axes.figure
    figure.canvas.draw()  # the layout is final only once drawn
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    scale = figure.dpi / 72
    points = axes.transData.transform([(label.x, label.y) for label in labels])
    # Wider than a marker, so that a label does not seem to belong to a neighbour.
    marks = _boxes(points, 14 * scale, 14 * scale)
    strokes = _boxes(np.concatenate([_along(line, 3 * scale) for line in axes.lines]), 3 * scale, 3 * scale)
    frame = np.array([axes.get_window_extent(renderer).extents])
    placed = np.zeros((len(labels), 4))
    # From the top down, so that a stack of points gets its labels in the same order.
    for index in np.argsort(-points[:, 1], kind="stable"):
        label = labels[index]
        text = axes.text(label.x, label.y, label.text, fontsize=size)
        extent = text.get_window_extent(renderer)
        text.remove()
        width, height = extent.width + 3 * scale, extent.height + scale
        offsets = np.array(
            [
                ((radius * scale + width / 2) * np.cos(angle), (radius * scale + height / 2) * np.sin(angle))
                for radius in _RADII
                for angle in _ANGLES
            ]
        )
        places = _boxes(points[index] + offsets, width, height)
        # Leaders are lines too: none may cross a label that stands already, nor a later label an earlier leader.
        leaders = points[index] + _LEADER[None, :, None] * offsets[:, None, :]
        crossing = _overlap(_boxes(leaders.reshape(-1, 2), 4 * scale, 4 * scale), placed)
        cost = (
            8 * _overlap(places, placed)
            + 4 * crossing.reshape(len(places), -1).sum(axis=1)
            + 4 * (width * height - _overlap(places, frame))
            + 2 * _overlap(places, marks)
            + _overlap(places, strokes)
            + 0.2 * height * np.repeat(_RADII, len(_ANGLES))
        )
        best = int(np.argmin(cost))
        placed[index] = places[best]
        strokes = np.concatenate([strokes, _boxes(leaders[best], 3 * scale, 3 * scale)])
        _write(axes, label, offsets[best] / scale, size, width / scale, height / scale)
    return placed


def _write(
    axes: Axes, label: Label, offset: Float[np.ndarray, " 2"], size: float, width: float, height: float
) -> None:
    gap = np.maximum(np.abs(offset) - np.array([width, height]) / 2, 0)
    line = {"arrowstyle": "-", "color": label.colour, "lw": 0.5, "alpha": 0.6, "shrinkB": 3}
    axes.annotate(
        label.text,
        (label.x, label.y),
        xytext=(float(offset[0]), float(offset[1])),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=size,
        color=label.colour,
        arrowprops=line if np.hypot(*gap) > 10 else None,
    )


def _along(line: Line2D, step: float) -> Float[np.ndarray, "K 2"]:
    """Points every ``step`` pixels along a drawn line."""
    vertices = np.asarray(line.get_transform().transform_path(line.get_path()).vertices, np.float64)
    pieces = [vertices[:1]]
    for begin, end in itertools.pairwise(vertices):
        count = max(1, int(np.hypot(*(end - begin)) / step))
        pieces.append(begin + np.linspace(0, 1, count + 1)[1:, None] * (end - begin))
    return np.concatenate(pieces)


def _boxes(centres: Float[np.ndarray, "K 2"], width: float, height: float) -> Boxes:
    half = np.array([width, height]) / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def _overlap(ours: Boxes, others: Boxes) -> Float[np.ndarray, " K"]:
    """For each of ours, the area that it has in common with the others, square pixels."""
    low = np.maximum(ours[:, None, :2], others[None, :, :2])
    high = np.minimum(ours[:, None, 2:], others[None, :, 2:])
    return np.prod(np.maximum(high - low, 0), axis=-1).sum(axis=1)
