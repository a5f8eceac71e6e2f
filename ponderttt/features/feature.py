"""The definition of one feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: The sizes for which FLOPs are stated: tokens, width, heads, observed blocks, sketch of a gradient.
T, D, N, L, S = 512, 576, 9, 2, 8
#: Weight of the newest value in a moving average; the first value starts it.
EMA_STEP = 0.3


@dataclass(frozen=True)
class Feature:
    """One feature.

    Attributes:
        name: its name in records and configuration.
        group: name of a group of related features.
        definition: its definition, in one sentence.
        low: smallest possible value.
        high: largest possible value.
        flops: floating-point operations per chunk of :data:`T` tokens and width :data:`D`; work that several features
            share is counted at one of them, so that the numbers add up.
        source: measured by the frozen pass, or by the loop.
    """

    name: str
    group: str
    definition: str
    low: float
    high: float
    flops: int
    source: Literal["frozen", "loop"]


def frozen(group: str, name: str, low: float, high: float, flops: int, definition: str) -> Feature:
    """Return a feature that the frozen pass measures."""
    return Feature(name, group, definition, low, high, flops, "frozen")


def loop(group: str, name: str, low: float, high: float, flops: int, definition: str) -> Feature:
    """Return a feature that depends on what an arm did."""
    return Feature(name, group, definition, low, high, flops, "loop")
