"""Rank correlations in samples of streams, over all chunks and within streams, and their jackknife intervals."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from ponderttt.reporting.numbers.statistics import Interval, t_interval


def middle_ranks(
    values: Float[np.ndarray, " C"], repeats: Float[np.ndarray, "B C"]
) -> Float[np.ndarray, "B C"]:
    """Return the ranks of ``values`` in each of B samples, minus their mean; equal values share a rank.

    Sample b holds value c ``repeats[b, c]`` times.  A value that it does not hold gets the rank that it would have.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    # Equal values share the middle of their places.
    count = np.add.reduceat(repeats[:, order], starts, axis=1)
    total = np.cumsum(count, axis=1)
    # The mean of all middles is half the number of values, with or without ties.
    middle = total - count / 2 - total[:, -1:] / 2
    group = np.empty(len(values), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(values)]))
    return middle[:, group]


def standard_ranks(
    values: Float[np.ndarray, " C"], repeats: Float[np.ndarray, "B C"]
) -> Float[np.ndarray, "B C"]:
    """Return ranks in each of B samples, scaled so that Spearman's rho of x and y is the row sum of their product.

    The rho is that of a sample that holds value c ``repeats[b, c]`` times; NaN if all its values are equal.
    """
    ranks = np.sqrt(repeats) * middle_ranks(values, repeats)
    norm = np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    return np.divide(ranks, norm, out=np.full_like(ranks, np.nan), where=norm > 0)


def ranks_within_streams(
    values: Float[np.ndarray, " C"], stream: Int[np.ndarray, " C"], n_streams: int
) -> Float[np.ndarray, " C"]:
    """Return the rank of each chunk within its stream, minus the stream's mean, divided by the stream's length.

    Their correlation says whether a signal tells the chunks of *one* stream apart; chunks of long streams weigh no more.
    """
    belongs = (stream == np.arange(n_streams)[:, None]).astype(np.float64)
    ranks = middle_ranks(values, belongs)[stream, np.arange(len(stream))]
    return ranks / belongs.sum(axis=1)[stream]


def resampled_correlation(
    x: Float[np.ndarray, " C"],
    y: Float[np.ndarray, " C"],
    stream: Int[np.ndarray, " C"],
    counts: Float[np.ndarray, "B S"],
) -> Float[np.ndarray, " B"]:
    """Return Σxy / √(Σx² Σy²) of centred x and y in each of B samples of streams; NaN where nothing varies."""

    def sums(terms: Float[np.ndarray, " C"]) -> Float[np.ndarray, " B"]:
        return counts @ np.bincount(stream, terms, minlength=counts.shape[1])

    below = np.sqrt(sums(x**2) * sums(y**2))
    return np.divide(sums(x * y), below, out=np.full(len(counts), np.nan), where=below > 0)


def correlation_interval(rho: float, without: Float[np.ndarray, " S"], confidence: float) -> Interval | None:
    """Return the jackknife interval of a correlation over S streams; None for fewer than two, or if one of them decides it.

    Student's t-interval of the pseudo-values S·z − (S − 1)·z₋ₛ of z = artanh ρ, transformed back: on this scale the interval
    stays between −1 and 1, and its error hardly depends on ρ (Efron & Tibshirani 1993, §11).

    Args:
        rho: the correlation in all streams.
        without: the correlation without each stream; NaN where nothing varies.
        confidence: confidence level.
    """
    n = len(without)
    if n < 2 or not np.isfinite(without).all():
        return None
    # Perfect correlations have no finite z.
    z, z_without = (np.arctanh(np.clip(values, -1 + 1e-12, 1 - 1e-12)) for values in (rho, without))
    interval = t_interval(n * z - (n - 1) * z_without, confidence)
    return interval and Interval(*np.tanh(interval).tolist())
