"""The statistics of the table: token-weighted means, a paired bootstrap over streams, and seed intervals.

Chunks of one stream are correlated, so the unit that is resampled is the *stream*.  Every quantity of an arm is a
ratio of sums over streams (nats / tokens, bits / bytes, a slope), which makes one resampling serve them all: the
same resampled streams are used for every arm, so differences between arms are paired.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
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
    """A generator of ``seed`` for this sequence of names; the same in every process, unlike Python's ``hash``."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def token_weighted_mean(loss: ArrayLike, n_tokens: ArrayLike) -> float:
    """Mean loss per token of chunks whose ``loss`` is a mean over ``n_tokens`` tokens.

    Raises:
        ValueError: there is no token.
    """
    weights = np.asarray(n_tokens, np.float64)
    if weights.sum() <= 0:
        raise ValueError("a mean over no token is not defined")
    return float(np.asarray(loss, np.float64) @ weights / weights.sum())


@dataclass(frozen=True)
class StreamResamples:
    """How often each of S streams was drawn in each of B bootstrap samples (S draws with replacement)."""

    counts: Float[np.ndarray, "B S"]

    @classmethod
    def draw(cls, n_streams: int, samples: int, generator: np.random.Generator) -> StreamResamples:
        """Draw ``samples`` resamples; the same generator state gives the same resamples."""
        counts = generator.multinomial(n_streams, np.full(n_streams, 1.0 / n_streams), size=samples)
        return cls(counts.astype(np.float64))

    def ratio(
        self, numerator: Float[np.ndarray, " S"], denominator: Float[np.ndarray, " S"]
    ) -> Float[np.ndarray, " B"]:
        """Sum of ``numerator`` over sum of ``denominator`` in each sample; NaN where the latter is zero."""
        below = self.counts @ denominator
        above = self.counts @ numerator
        return np.divide(above, below, out=np.full(len(below), np.nan), where=below != 0)

    def interval(
        self, numerator: Float[np.ndarray, " S"], denominator: Float[np.ndarray, " S"], confidence: float
    ) -> Interval | None:
        """Percentile interval of the ratio of sums; ``None`` for a single stream, which has nothing to resample.

        Efron & Tibshirani 1993, §13.3.  For a paired difference, ``numerator`` is the difference of the two arms'
        sums: arms that are equal on every stream give an interval of width zero.
        """
        if self.counts.shape[1] < 2:
            return None
        return percentile_interval(self.ratio(numerator, denominator), confidence)


def percentile_interval(samples: Float[np.ndarray, " B"], confidence: float) -> Interval | None:
    """The central ``confidence`` of the finite samples; ``None`` if there are none."""
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def t_interval(values: ArrayLike, confidence: float) -> Interval | None:
    """Student's t-interval of the mean of independent values, here seeds; ``None`` for fewer than two."""
    from scipy import stats

    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return None
    centre = array.mean()
    half = stats.t.ppf((1 + confidence) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return Interval(float(centre - half), float(centre + half))


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of what is left when the lowest and the highest quarter are cut (Agarwal et al. 2021, arXiv:2108.13264).

    Of n values, ⌊n/4⌋ are cut at each end.

    Raises:
        PonderTTTError: fewer than 4 values, of which no quarter can be cut.
    """
    array = np.sort(np.asarray(values, np.float64))
    cut = len(array) // 4
    if cut == 0:
        raise PonderTTTError(
            f"an interquartile mean needs at least 4 values, found {len(array)}: report the mean instead"
        )
    return float(array[cut : len(array) - cut].mean())


def probability_of_improvement(ours: Float[np.ndarray, "N S"], theirs: Float[np.ndarray, "M S"]) -> float:
    """P(ours < theirs): how likely a random run of ours has the *lower loss* on a random stream; a tie is a half.

    The mean over streams of the Mann–Whitney statistic of the runs (Agarwal et al. 2021, arXiv:2108.13264, eq. 1).

    Args:
        ours: loss per run (seed) and stream.
        theirs: the same for the other arm, which may have another number of runs.
    """
    difference = ours[:, None, :] - theirs[None, :, :]
    return float(np.mean((difference < 0) + 0.5 * (difference == 0)))


class SlopeTerms(NamedTuple):
    """Per stream; the sum of ``numerator`` over the sum of ``denominator`` is the pooled within-stream slope."""

    numerator: Float[np.ndarray, " S"]
    denominator: Float[np.ndarray, " S"]


def within_stream_slope(
    value: Float[np.ndarray, " C"],
    position: Int[np.ndarray, " C"],
    weight: Int[np.ndarray, " C"],
    stream: Int[np.ndarray, " C"],
    n_streams: int,
) -> SlopeTerms:
    """Weighted least-squares slope of ``value`` on ``position`` with an intercept of its own for every stream.

    Streams differ in length and difficulty; comparing each chunk with its own stream's mean only keeps long streams
    from posing as growth.
    """

    def per_stream(terms: Float[np.ndarray, " C"]) -> Float[np.ndarray, " S"]:
        return np.bincount(stream, terms, minlength=n_streams)

    weight = weight.astype(np.float64)
    total = per_stream(weight)
    centred = position - (per_stream(weight * position) / total)[stream]
    return SlopeTerms(per_stream(weight * centred * value), per_stream(weight * centred**2))


def uniform_gap(ranks: Float[np.ndarray, " N"]) -> float:
    """Largest distance between the distribution of ``ranks`` in 0..1 and the uniform one (Kolmogorov–Smirnov)."""
    ordered = np.sort(ranks)
    below = np.arange(len(ordered)) / len(ordered)
    return float(max(np.max(ordered - below), np.max(below + 1 / len(ordered) - ordered)))


def middle_ranks(
    values: Float[np.ndarray, " C"], repeats: Float[np.ndarray, "B C"]
) -> Float[np.ndarray, "B C"]:
    """Ranks of ``values`` in each of B samples, from whose mean they are counted; equal values share a rank.

    A sample has value c ``repeats[b, c]`` times; what it has not has the rank that it would have.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    # Equal values share the middle of the places that they take up.
    count = np.add.reduceat(repeats[:, order], starts, axis=1)
    total = np.cumsum(count, axis=1)
    # The mean of all middles is half the number of values, whatever the ties.
    middle = total - count / 2 - total[:, -1:] / 2
    group = np.empty(len(values), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(values)]))
    return middle[:, group]


def standard_ranks(
    values: Float[np.ndarray, " C"], repeats: Float[np.ndarray, "B C"]
) -> Float[np.ndarray, "B C"]:
    """Ranks in each of B samples, scaled so that Spearman's rho of x and y is the row sum of their product.

    The rho is that of the sample written out in full, value c ``repeats[b, c]`` times; NaN in a sample that does not
    vary.
    """
    ranks = np.sqrt(repeats) * middle_ranks(values, repeats)
    norm = np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    return np.divide(ranks, norm, out=np.full_like(ranks, np.nan), where=norm > 0)


def ranks_within_streams(
    values: Float[np.ndarray, " C"], stream: Int[np.ndarray, " C"], n_streams: int
) -> Float[np.ndarray, " C"]:
    """Rank of each chunk among those of its own stream, from the stream's mean, over the stream's length.

    Correlated, they say whether a signal tells the chunks of *one* stream apart; a long stream's chunks weigh no more.
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
    """Σxy / √(Σx² Σy²) of centred x and y in each of B samples of streams; NaN where nothing varies."""

    def sums(terms: Float[np.ndarray, " C"]) -> Float[np.ndarray, " B"]:
        return counts @ np.bincount(stream, terms, minlength=counts.shape[1])

    below = np.sqrt(sums(x**2) * sums(y**2))
    return np.divide(sums(x * y), below, out=np.full(len(counts), np.nan), where=below > 0)


class Envelope(NamedTuple):
    """The least loss that a policy reaches at each cost: linear between the costs, level after the last."""

    cost: Float[np.ndarray, " P"]
    loss: Float[np.ndarray, "... P"]

    def mean_between(self, low: float, high: float) -> Float[np.ndarray, ...]:
        """Area under the envelope from ``low`` to ``high``, by trapezoids, over its width: nats per token.

        Raises:
            ValueError: the range is empty, or begins before the cheapest point.
        """
        if not self.cost[0] <= low < high:
            raise ValueError(f"no area from {low} to {high}: the cheapest point costs {self.cost[0]}")
        at = np.unique([low, *self.cost[(self.cost > low) & (self.cost < high)], high])
        # Share of each point in the loss at each place.
        share = np.stack([np.interp(at, self.cost, unit) for unit in np.eye(len(self.cost))], axis=-1)
        width = np.diff(at)
        weight = (width @ (share[1:] + share[:-1])) / 2 / (high - low)
        return self.loss @ weight


def lower_envelope(cost: Float[np.ndarray, " Q"], loss: Float[np.ndarray, "... Q"]) -> Envelope:
    """The lower convex envelope of (cost, loss) points, not rising with cost, for one or many sets of losses.

    Some streams at one point and some at another have a cost and a loss between the two, so whatever lies on a line
    between points is reached too; and what a cheaper point has, a dearer one need not be worse than.
    """
    costs, place = np.unique(cost, return_inverse=True)
    least = np.stack([loss[..., place == p].min(axis=-1) for p in range(len(costs))], axis=-1)
    least = np.minimum.accumulate(least, axis=-1)
    reached = least.copy()
    for i in range(len(costs)):
        for k in range(i + 2, len(costs)):
            for j in range(i + 1, k):
                share = (costs[j] - costs[i]) / (costs[k] - costs[i])
                between = (1 - share) * least[..., i] + share * least[..., k]
                reached[..., j] = np.minimum(reached[..., j], between)
    return Envelope(costs, reached)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of pass@k from ``n`` samples of which ``correct`` passed (Chen et al. 2021, arXiv:2107.03374).

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
