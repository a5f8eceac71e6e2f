"""How often intervals hold the true value, and claims are false: ``python tests/reporting/simulated_coverage.py`` prints it.

Streams have a loss (or a paired difference) per token of a known mean, and lengths of their own.  An interval of 95 % should hold
that mean in 95 % of the simulated studies.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ponderttt.reporting.numbers.sampling import StreamSampling, ratio_interval
from ponderttt.settings.statistics import StatisticsConfig

CONFIDENCE = 0.95
STREAMS = (4, 8, 20, 40)
#: Values per token with mean 0: symmetric, with heavy tails, skewed (skewness 2), very skewed (skewness 6.2).
SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Float[np.ndarray, "R S"]]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails (t, 3 df)": lambda rng, shape: rng.standard_t(3, shape),
    "skewed (exponential)": lambda rng, shape: rng.exponential(size=shape) - 1.0,
    "very skewed (lognormal)": lambda rng, shape: rng.lognormal(size=shape) - np.exp(0.5),
}
#: Tokens of the streams: equal, or with a coefficient of variation of 0.53.
LENGTHS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Float[np.ndarray, "R S"]]] = {
    "equal": lambda rng, shape: np.full(shape, 3072.0),
    "unequal": lambda rng, shape: 3072.0 * rng.lognormal(sigma=0.5, size=shape),
}
Ends = tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]


def worlds(shape: str, lengths: str, n: int, studies: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return nats and tokens of ``n`` streams in each study; the true ratio is 0."""
    rng = np.random.default_rng([seed, n, list(SHAPES).index(shape), list(LENGTHS).index(lengths)])
    tokens = LENGTHS[lengths](rng, (studies, n))
    return SHAPES[shape](rng, (studies, n)) * tokens, tokens


def shares(
    noise: float, n: int, studies: int, certainty: float = 5.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return gains of an arm and of its oracle, whose true share is 0.6; the oracle's gain is ``certainty`` standard errors."""
    rng = np.random.default_rng([seed, n])
    possible = rng.normal(certainty / np.sqrt(n), 1.0, (studies, n))
    return 0.6 * possible + rng.normal(0.0, noise, (studies, n)), possible


def resamples(n: int, samples: int, seed: int = 1) -> Float[np.ndarray, "B S"]:
    """Return bootstrap samples of ``n`` streams."""
    even = np.full(n, 1 / n)
    return np.random.default_rng([seed, n]).multinomial(n, even, size=samples).astype(float)


def percentile_interval(numerator: np.ndarray, denominator: np.ndarray, counts: np.ndarray) -> Ends:
    """Return the percentile bootstrap interval (Efron & Tibshirani 1993, §13.3), for contrast."""
    ratios = numerator @ counts.T / (denominator @ counts.T)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=-1)
    return low, high


def studentised_interval(numerator: np.ndarray, denominator: np.ndarray, counts: np.ndarray) -> Ends:
    """Return the interval of the table."""
    return ratio_interval(numerator, denominator, counts, CONFIDENCE)


def student_interval(numerator: np.ndarray, denominator: np.ndarray, counts: np.ndarray) -> Ends:
    """Return Student's interval of the linearised ratio, which the table's is never narrower than, for contrast."""
    from scipy import stats

    n, total = numerator.shape[-1], denominator.sum(-1)
    ratio = numerator.sum(-1) / total
    residual = numerator - ratio[:, None] * denominator
    error = np.sqrt(n / (n - 1) * np.square(residual).sum(-1)) / total
    half = error * stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    return ratio - half, ratio + half


def p_values(differences: np.ndarray, flips: int, seed: int = 2) -> Float[np.ndarray, " R"]:
    """Return the p values of the sign-flip test of many studies, see :meth:`StreamSampling.p_value`."""
    studies, n = differences.shape
    config = StatisticsConfig(bootstrap_samples=39, sign_flips=flips, seed=seed)
    sampling = StreamSampling.of(n, "simulation", config)
    return np.array([sampling.p_value(differences[i]) for i in range(studies)], float)


def coverage(ends: Ends, truth: float) -> float:
    """Return the share of intervals that hold the true value."""
    return float(np.mean((ends[0] <= truth) & (truth <= ends[1])))


def width(ends: Ends) -> float:
    """Return the median width."""
    return float(np.median(ends[1] - ends[0]))


def claims(ends: Ends, p: Float[np.ndarray, " R"]) -> float:
    """Return the share of studies that claim an effect: the interval excludes zero, and p is small."""
    return float(np.mean(((ends[0] > 0) | (ends[1] < 0)) & (p <= 1 - CONFIDENCE + 1e-12)))


def main() -> None:
    """Print the coverage in per cent, and widths in multiples of that of Student's interval; then false claims in per cent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=4000, help="simulated studies for each number")
    parser.add_argument("--samples", type=int, default=1999, help="bootstrap samples")
    options = parser.parse_args()
    methods = (studentised_interval, student_interval, percentile_interval)
    print("| streams differ by | tokens | " + " | ".join(f"n = {n}" for n in STREAMS) + " |")
    print("|---" * (2 + len(STREAMS)) + "|")

    def line(
        name: str, tokens: str, world: Callable[[int], tuple[np.ndarray, np.ndarray]], truth: float
    ) -> None:
        cells = []
        for n in STREAMS:
            found = [method(*world(n), resamples(n, options.samples)) for method in methods]
            held = " / ".join(f"{100 * coverage(ends, truth):.0f}" for ends in found)
            cells.append(f"{held} ({width(found[0]) / width(found[1]):.2f})")
        print(f"| {name} | {tokens} | {' | '.join(cells)} |", flush=True)

    for tokens in LENGTHS:
        for shape in SHAPES:
            line(shape, tokens, lambda n, s=shape, t=tokens: worlds(s, t, n, options.studies), 0.0)
    line("recovered share", "–", lambda n: shares(0.5, n, options.studies), 0.6)
    print()
    print("| streams differ by | tokens | " + " | ".join(f"n = {n}" for n in STREAMS) + " |")
    print("|---" * (2 + len(STREAMS)) + "|")
    for tokens in LENGTHS:
        for shape in SHAPES:
            cells = []
            for n in STREAMS:
                numerator, denominator = worlds(shape, tokens, n, options.studies)
                ends = studentised_interval(numerator, denominator, resamples(n, options.samples))
                p = p_values(numerator, options.samples)
                alone = np.mean(p <= 1 - CONFIDENCE + 1e-12)
                cells.append(f"{100 * claims(ends, p):.1f} / {100 * alone:.1f}")
            print(f"| {shape} | {tokens} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
