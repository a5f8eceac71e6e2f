"""Intervals and p values over streams: a studentised bootstrap of ratios of sums, and an exact sign-flip test.

Chunks of one stream are correlated, so the *stream* is the unit.  Every quantity of an arm is a ratio of sums over streams
(nats / tokens, a slope, a share of a gain).  All arms of a corpus share the same samples and flips, so differences are paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ponderttt.reporting.numbers.columns import Estimate
from ponderttt.reporting.numbers.statistics import Interval, RatioTerms, named_generator
from ponderttt.settings.statistics import StatisticsConfig

#: With fewer streams, too many samples draw one stream only, whose own error is zero.
FEWEST_RESAMPLED = 4
#: Up to this many streams, all flips of signs are counted; beyond it, they are drawn.
MOST_ENUMERATED = 16


@dataclass(frozen=True)
class StreamSampling:
    """The bootstrap samples and the flips of signs of S streams, and the confidence of their intervals."""

    #: How often each stream is in each of B samples of S streams, drawn with replacement.
    counts: Float[np.ndarray, "B S"]
    #: −1 or 1 for each stream in each of F flips; if they are enumerated, the last stream keeps its sign.
    signs: Float[np.ndarray, "F S"]
    enumerated: bool
    confidence: float

    @classmethod
    def of(cls, n_streams: int, corpus: str, statistics: StatisticsConfig) -> StreamSampling:
        """Draw samples and flips for a corpus; the same settings and name give the same ones in every process."""
        even = np.full(n_streams, 1.0 / n_streams)
        resampling = named_generator(statistics.seed, "streams", corpus)
        counts = resampling.multinomial(n_streams, even, size=statistics.bootstrap_samples)
        enumerated = n_streams <= MOST_ENUMERATED
        if enumerated:
            flipped = np.arange(2 ** (n_streams - 1))[:, None] >> np.arange(n_streams) & 1
        else:
            flipping = named_generator(statistics.seed, "signs", corpus)
            flipped = flipping.integers(0, 2, (statistics.sign_flips, n_streams))
        return cls(counts.astype(np.float64), 1.0 - 2.0 * flipped, enumerated, statistics.confidence)

    def estimate(self, terms: RatioTerms) -> Estimate:
        """Return a ratio of sums with its interval."""
        return Estimate.of(terms.value, self.interval(terms))

    def tested(self, terms: RatioTerms) -> Estimate:
        """Return a ratio of sums that is zero without an effect, with its interval and p value."""
        return Estimate.of(terms.value, self.interval(terms), self.p_value(terms.numerator))

    def interval(self, terms: RatioTerms) -> Interval | None:
        """Return the interval of a ratio of sums, see :func:`ratio_interval`; None where an end is unknown, or for one stream."""
        if len(terms.numerator) < 2:
            return None
        ends = np.array(ratio_interval(*terms, self.counts, self.confidence))
        return Interval(*ends.tolist()) if np.isfinite(ends).all() else None

    def p_value(self, differences: Float[np.ndarray, " S"]) -> float | None:
        """Return the two-sided p of the sign-flip test of the sum of paired differences; None for one stream.

        Without an effect, each stream's difference is as likely as its negative.  The p value is the share of flips whose sum is
        at least as far from zero (Fisher 1935, §21): exact if all flips are enumerated, else (1 + k) / (1 + F) with k of F
        random flips (Phipson & Smyth 2010).  ``scipy.stats.permutation_test`` gives the same, in a second for 16 streams.
        """
        if len(differences) < 2:
            return None
        rounding = 1e-12 * np.abs(differences).sum()
        extreme = int((np.abs(self.signs @ differences) >= abs(differences.sum()) - rounding).sum())
        flips = len(self.signs)
        return extreme / flips if self.enumerated else (1 + extreme) / (1 + flips)


def ratio_interval(
    numerator: Float[np.ndarray, "*N S"],
    denominator: Float[np.ndarray, "*N S"],
    counts: Float[np.ndarray, "B S"],
    confidence: float,
) -> tuple[Float[np.ndarray, "*N"], Float[np.ndarray, "*N"]]:
    """Return the ends of the studentised bootstrap interval of Σ ``numerator`` / Σ ``denominator``, for one or many ratios.

    The standard error is that of the linearised ratio: residuals ``numerator − ratio · denominator``, divided by the sum of the
    denominators (Cochran 1977, §2.11).  The critical values are the quantiles of the studentised ratio in ``counts`` (Efron &
    Tibshirani 1993, §12.5), but never below Student's with S − 1 degrees of freedom, which stand alone below
    :data:`FEWEST_RESAMPLED` streams.  The quantiles widen the end on the side of a skew; Student's value keeps the interval from
    being too narrow where tails are heavy or the denominator is uncertain.

    Returns:
        Low and high ends: the ratio itself where all streams have the same ratio, infinite where too many samples have no error
        of their own.
    """
    from scipy import stats

    n = numerator.shape[-1]
    total = denominator.sum(-1)
    ratio = numerator.sum(-1) / total
    residual = numerator - ratio[..., None] * denominator
    error = _error(np.square(residual).sum(-1), total, n)
    student = np.full(error.shape, stats.t.ppf((1 + confidence) / 2, n - 1))
    below, above = student, student
    if n >= FEWEST_RESAMPLED:
        studentised = np.sort(_studentised(residual, denominator, counts, error), axis=-1)
        last = studentised.shape[-1] - 1
        place = int((1 - confidence) / 2 * (last + 2)) - 1
        below = np.maximum(student, studentised[..., last - place])
        above = np.maximum(student, -studentised[..., place])
    equal = error * np.abs(total) <= 1e-12 * np.abs(numerator).sum(-1)
    error = np.where(equal, 1.0, error)
    return np.where(equal, ratio, ratio - error * below), np.where(equal, ratio, ratio + error * above)


def _error(squares: Float[np.ndarray, ...], total: Float[np.ndarray, ...], n: int) -> Float[np.ndarray, ...]:
    return np.sqrt(n / (n - 1) * np.maximum(squares, 0)) / np.abs(total)


def _studentised(
    residual: Float[np.ndarray, "*N S"],
    denominator: Float[np.ndarray, "*N S"],
    counts: Float[np.ndarray, "B S"],
    error: Float[np.ndarray, "*N"],
) -> Float[np.ndarray, "*N B"]:
    """Return (ratio in the sample − ratio) / its standard error in the sample; infinite where that error is zero."""
    total = denominator @ counts.T
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = residual @ counts.T / total
        squares = (
            np.square(residual) @ counts.T
            - 2 * shift * ((residual * denominator) @ counts.T)
            + np.square(shift) * (np.square(denominator) @ counts.T)
        )
        spread = _error(squares, total, residual.shape[-1])
        studentised = shift / spread
    # A sample of one stream several times has no error of its own, and rounding must not give it one.
    tiny = 1e-7 * error[..., None]
    without = np.where(np.abs(shift) <= tiny, 0.0, np.copysign(np.inf, shift))
    return np.where(spread > tiny, studentised, without)
