"""The statistics of the table that need no draws: terms of ratios, intervals over seeds, robust means, slopes, pass@k."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from ponderttt.errors import PonderTTTError


class Interval(NamedTuple):
    """The two ends of a confidence interval."""

    low: float
    high: float


def named_generator(seed: int, *names: str) -> np.random.Generator:
    """Return a generator seeded by ``seed`` and names; the same in every process, unlike Python's ``hash``."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


class RatioTerms(NamedTuple):
    """Terms of each of S streams; the quantity is the ratio of their sums."""

    numerator: Float[np.ndarray, " S"]
    denominator: Float[np.ndarray, " S"]

    @property
    def value(self) -> float:
        """The ratio of the sums."""
        return float(self.numerator.sum() / self.denominator.sum())


def t_interval(values: ArrayLike, confidence: float) -> Interval | None:
    """Return Student's t-interval of the mean of independent values, here seeds; None for fewer than two."""
    from scipy import stats

    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return None
    # Standardised, since scipy has no interval for equal values, whose standard error is zero.
    ends = array.mean() + stats.sem(array) * np.array(stats.t.interval(confidence, len(array) - 1))
    return Interval(*ends.tolist())


def interquartile_mean(values: ArrayLike) -> float:
    """Return the mean without the lowest and the highest ⌊n/4⌋ of n values (Agarwal et al. 2021, arXiv:2108.13264).

    Raises:
        PonderTTTError: fewer than 4 values.
    """
    from scipy import stats

    array = np.asarray(values, np.float64)
    if len(array) < 4:
        raise PonderTTTError(
            f"an interquartile mean needs at least 4 values, got {len(array)}; report the mean instead"
        )
    return float(stats.trim_mean(array, 0.25))


def probability_of_improvement(ours: Float[np.ndarray, "N S"], theirs: Float[np.ndarray, "M S"]) -> float:
    """Return the probability that a random run of ours has the *lower* loss on a random stream; a tie counts a half.

    Mean over streams of the Mann–Whitney statistic of the runs (Agarwal et al. 2021, arXiv:2108.13264, eq. 1).

    Args:
        ours: loss of N runs (seeds) on S streams.
        theirs: the same for M runs of the other arm.
    """
    difference = ours[:, None, :] - theirs[None, :, :]
    return float(np.mean((difference < 0) + 0.5 * (difference == 0)))


def within_stream_slope(
    value: Float[np.ndarray, " C"],
    position: Int[np.ndarray, " C"],
    weight: Int[np.ndarray, " C"],
    stream: Int[np.ndarray, " C"],
    n_streams: int,
) -> RatioTerms:
    """Return the terms of the pooled weighted least-squares slope of ``value`` on ``position``, one intercept per stream.

    Streams differ in length and difficulty.  Comparing each chunk with the mean of its own stream keeps that
    difference out of the slope.
    """

    def per_stream(terms: Float[np.ndarray, " C"]) -> Float[np.ndarray, " S"]:
        return np.bincount(stream, terms, minlength=n_streams)

    weight = weight.astype(np.float64)
    total = per_stream(weight)
    centred = position - (per_stream(weight * position) / total)[stream]
    return RatioTerms(per_stream(weight * centred * value), per_stream(weight * centred**2))


def uniform_gap(ranks: Float[np.ndarray, " N"]) -> float:
    """Return the Kolmogorov–Smirnov distance between the distribution of ``ranks`` in 0..1 and the uniform one."""
    from scipy import stats

    # Only the p-value, which nothing reads, depends on the method; the asymptotic one is cheap.
    return float(stats.kstest(ranks, "uniform", method="asymp").statistic)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Return the unbiased estimate of pass@k from ``n`` samples, ``correct`` of which passed (Chen et al. 2021, arXiv:2107.03374).

    1 − C(n−c, k)/C(n, k), as a product that cannot overflow.

    Raises:
        PonderTTTError: ``k`` exceeds ``n``, or the counts are impossible.
    """
    if not 0 <= correct <= n or k < 1:
        raise PonderTTTError(f"pass@k: impossible counts (n={n}, correct={correct}, k={k})")
    if k > n:
        raise PonderTTTError(f"pass@{k} cannot be estimated from {n} samples: draw at least {k} per problem")
    if n - correct < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(n - correct + 1, n + 1)))
