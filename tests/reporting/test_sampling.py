"""Intervals and p values over streams, on examples worked by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ponderttt.reporting.numbers.sampling import StreamSampling, ratio_interval
from ponderttt.reporting.numbers.statistics import Interval, RatioTerms
from ponderttt.settings.statistics import StatisticsConfig


def sampling(
    n_streams: int, samples: int = 4000, confidence: float = 0.95, flips: int = 4000
) -> StreamSampling:
    config = StatisticsConfig(bootstrap_samples=samples, confidence=confidence, sign_flips=flips)
    return StreamSampling.of(n_streams, "heldout-python", config)


def interval_of(
    numerator: np.ndarray, denominator: np.ndarray | None = None, samples: int = 4000
) -> Interval:
    tokens = np.ones(len(numerator)) if denominator is None else denominator
    found = sampling(len(numerator), samples).interval(RatioTerms(numerator, tokens))
    assert found is not None
    return found


def test_a_sample_draws_as_many_streams_as_there_are() -> None:
    counts = sampling(7).counts
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.06)


def test_samples_depend_on_the_corpus_and_the_seed_alone() -> None:
    config = StatisticsConfig(bootstrap_samples=50, sign_flips=50)
    first = StreamSampling.of(20, "a", config)
    assert (first.counts == StreamSampling.of(20, "a", config).counts).all()
    assert (first.signs == StreamSampling.of(20, "a", config).signs).all()
    for other in (
        StreamSampling.of(20, "b", config),
        StreamSampling.of(20, "a", StatisticsConfig(bootstrap_samples=50, sign_flips=50, seed=1)),
    ):
        assert (first.counts != other.counts).any()
        assert (first.signs != other.signs).any()


def test_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr,index]  # noqa: NPY002
    sampling(20)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]  # noqa: NPY002


def test_the_interval_resamples_streams_and_not_chunks() -> None:
    # Four streams of 100 chunks, at one loss throughout. By chunk, the mean of 400 values of standard deviation 1 would be
    # known to ±0.1; by stream, four values decide it.
    found = interval_of(np.array([100.0, 120.0, 280.0, 310.0]), np.full(4, 100.0))
    assert found.low <= 1.0
    assert found.high >= 3.0


def test_four_streams_of_which_two_are_equal_leave_the_ends_unknown() -> None:
    terms = RatioTerms(np.array([100.0, 100.0, 300.0, 300.0]), np.full(4, 100.0))
    assert sampling(4).interval(terms) is None


def test_two_and_three_streams_have_students_interval() -> None:
    # Mean 2, standard deviation 1, t(0.975, 2) = 4.302653: 2 ± 4.302653 / √3.
    assert interval_of(np.array([1.0, 2.0, 3.0])) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    # t(0.975, 1) = 12.7062: 0.5 ± 12.7062 · 0.5.
    assert interval_of(np.array([0.0, 1.0])) == pytest.approx((0.5 - 6.3531, 0.5 + 6.3531), abs=1e-4)


def test_the_error_is_that_of_the_linearised_ratio() -> None:
    # Ratio (1 + 6) / (1 + 2 + 1) = 1.75 with 0 in the last stream; residuals −0.75, 2.5, −1.75; their squares sum to 9.875.
    numerator, denominator = np.array([1.0, 6.0, 0.0]), np.array([1.0, 2.0, 1.0])
    error = np.sqrt(1.5 * 9.875) / 4
    found = interval_of(numerator, denominator)
    assert found == pytest.approx((1.75 - 4.302653 * error, 1.75 + 4.302653 * error), abs=1e-5)


def test_a_skew_widens_the_end_on_its_side_and_no_end_is_narrower_than_students() -> None:
    values = np.array([0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.4, 2.0])
    found = interval_of(values)
    mean, half = values.mean(), stats.sem(values) * stats.t.ppf(0.975, 7)
    assert found.low <= mean - half + 1e-12
    assert found.high > mean + 2 * half
    mirrored = interval_of(-values)
    assert (-mirrored.high, -mirrored.low) == pytest.approx(found)


def test_many_ratios_at_once_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(3)
    numerator, denominator = rng.normal(size=(5, 9)), rng.uniform(1, 3, (5, 9))
    counts = sampling(9, 300).counts
    low, high = ratio_interval(numerator, denominator, counts, 0.95)
    for i in range(5):
        assert ratio_interval(numerator[i], denominator[i], counts, 0.95) == pytest.approx((low[i], high[i]))


def test_the_paired_interval_ignores_difficulty() -> None:
    rng = np.random.default_rng(1)
    difficulty = rng.normal(3, 1, 30)
    tokens = rng.integers(500, 4000, 30).astype(float)
    difference = -0.05 + rng.normal(0, 0.02, 30)
    paired = interval_of(difference * tokens, tokens)
    alone = interval_of((difficulty + difference) * tokens, tokens)
    assert paired.low < -0.05 < paired.high < 0
    assert (alone.high - alone.low) > 20 * (paired.high - paired.low)


@pytest.mark.parametrize("n", [3, 9])
def test_equal_arms_have_a_difference_of_exactly_zero_and_streams_with_one_ratio_an_interval_without_width(
    n: int,
) -> None:
    tokens = np.arange(1.0, n + 1)
    assert interval_of(np.zeros(n), tokens) == (0.0, 0.0)
    assert interval_of(-0.1 * tokens, tokens) == pytest.approx((-0.1, -0.1))
    assert sampling(n).p_value(np.zeros(n)) == 1.0


def test_one_stream_has_neither_interval_nor_p() -> None:
    estimate = sampling(1).tested(RatioTerms(np.array([2.0]), np.array([1.0])))
    assert estimate == (2.0, None, None, None)


def test_an_end_that_four_streams_cannot_tell_is_no_interval() -> None:
    # One of 64 samples draws one stream only; at 99 % that is more than is cut off.
    terms = RatioTerms(np.array([1.0, 2.0, 4.0, 9.0]), np.ones(4))
    assert sampling(4, confidence=0.99).interval(terms) is None
    assert sampling(4, confidence=0.95).interval(terms) is not None


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-50, 50), min_size=6, max_size=10, unique=True),
    st.floats(-3, 3),
    st.floats(0.1, 5),
)
def test_the_interval_moves_and_stretches_with_the_values(
    values: list[int], shift: float, scale: float
) -> None:
    # Values a tenth apart: rounding cannot make two streams equal.
    plain = interval_of(np.array(values) / 10, samples=200)
    moved = interval_of(scale * np.array(values) / 10 + shift, samples=200)
    assert moved == pytest.approx([scale * plain.low + shift, scale * plain.high + shift], rel=1e-6, abs=1e-6)


def test_p_counts_the_flips_that_are_as_far_from_zero() -> None:
    # Of 8 flips of 1, 2 and −3 the sums are ±0 (twice), ±2, ±4, ±6: all are as far from zero as the sum 0.
    assert sampling(3).p_value(np.array([1.0, 2.0, -3.0])) == 1.0
    # 1 + 2 + 3: only all three of one sign are as far.
    assert sampling(3).p_value(np.array([1.0, 2.0, 3.0])) == 2 / 8
    # −1 + 2 + 3 = 4 is reached by ±4 and ±6.
    assert sampling(3).p_value(np.array([-1.0, 2.0, 3.0])) == 4 / 8


@pytest.mark.parametrize("n", [2, 5, 6, 11])
def test_up_to_sixteen_streams_p_is_the_exact_one_of_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    for shift in (0.0, 0.7):
        differences = rng.normal(shift, 1, n)
        exact = stats.permutation_test(
            (differences,),
            lambda values, axis: values.sum(axis),
            permutation_type="samples",
            n_resamples=np.inf,
            vectorized=True,
        )
        assert sampling(n).p_value(differences) == pytest.approx(exact.pvalue, abs=1e-12)


def test_p_below_one_in_twenty_needs_six_streams() -> None:
    for n, smallest in ((4, 2 / 16), (5, 2 / 32), (6, 2 / 64)):
        assert sampling(n).p_value(np.arange(1.0, n + 1)) == smallest


def test_beyond_sixteen_streams_p_is_drawn_and_never_zero() -> None:
    enumerated, drawn = sampling(16), sampling(17, flips=20_000)
    assert (enumerated.enumerated, drawn.enumerated) == (True, False)
    assert enumerated.signs.shape == (2**15, 16)
    assert drawn.p_value(np.ones(17)) == 1 / 20_001
    differences = np.random.default_rng(5).normal(0.4, 1, 16)
    exact = enumerated.p_value(differences)
    assert exact is not None
    # A stream without a difference changes nothing.
    assert drawn.p_value(np.append(differences, 0.0)) == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))
