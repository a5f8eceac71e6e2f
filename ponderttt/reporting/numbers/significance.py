"""What p values can and cannot carry: the fewest streams of a claim, what chance alone gives, Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ponderttt.reporting.numbers.sampling import MOST_ENUMERATED


def fewest_streams(confidence: float) -> int:
    """Return the number of streams from which a sign-flip test can reach p ≤ 1 − ``confidence``: 6 for 95 %."""
    n = 1
    while largest_p(n, confidence) == 0:
        n += 1
    return n


def largest_p(n_streams: int, confidence: float) -> float:
    """Return the probability of p ≤ 1 − ``confidence`` without an effect.

    With few streams it is below 1 − ``confidence``: p values are multiples of 2 / 2ⁿ, and 0 if the smallest one is too large.
    """
    level = 1 - confidence
    if n_streams > MOST_ENUMERATED:
        return level
    flips = 2 ** (n_streams - 1)
    # Rounding must not lose a p value of exactly the level.
    return int(level * flips + 1e-9) / flips


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number, in the same order (Holm 1979).

    The chance that any of them is at most α, if none of the effects exists, is at most α.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted.tolist()
