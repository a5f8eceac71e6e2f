"""The statistics on examples worked by hand, and their laws."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ponderttt.errors import PonderTTTError
from ponderttt.reporting.numbers.envelope import lower_envelope
from ponderttt.reporting.numbers.ranks import (
    correlation_interval,
    ranks_within_streams,
    resampled_correlation,
    standard_ranks,
)
from ponderttt.reporting.numbers.statistics import (
    interquartile_mean,
    named_generator,
    pass_at_k,
    probability_of_improvement,
    t_interval,
    uniform_gap,
    within_stream_slope,
)


def test_the_generator_is_the_same_in_every_process_and_differs_by_name() -> None:
    code = "from ponderttt.reporting.numbers.statistics import named_generator as g; print(g(3, 'streams', 'a').random())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(other) == named_generator(3, "streams", "a").random()
    assert named_generator(3, "streams", "b").random() != named_generator(3, "streams", "a").random()
    assert named_generator(4, "streams", "a").random() != named_generator(3, "streams", "a").random()


def test_t_interval_of_three_seeds() -> None:
    # Mean 2, standard deviation 1, t(0.975, 2) = 4.302653: 2 ± 4.302653 / √3.
    interval = t_interval([1.0, 2.0, 3.0], 0.95)
    assert interval == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert t_interval([2.5, 2.5], 0.95) == (2.5, 2.5)
    assert t_interval([1.0], 0.95) is None


def test_interquartile_mean_cuts_a_quarter_at_each_end_and_needs_four_values() -> None:
    assert interquartile_mean([100.0, 1.0, 2.0, -50.0]) == 1.5
    assert interquartile_mean([0.0, 1.0, 2.0, 3.0, 4.0]) == 2.0
    with pytest.raises(PonderTTTError, match="at least 4 values, got 3"):
        interquartile_mean([1.0, 2.0, 3.0])


def test_probability_of_improvement_counts_a_tie_as_a_half() -> None:
    # Stream 0: runs 1 and 3 against 2 and 3: 1<2, 1<3, 3>2, 3=3: 2.5 of 4. Stream 1: all equal: 2 of 4.
    ours = np.array([[1.0, 5.0], [3.0, 5.0]])
    theirs = np.array([[2.0, 5.0], [3.0, 5.0]])
    assert probability_of_improvement(ours, theirs) == pytest.approx((2.5 / 4 + 0.5) / 2)
    assert probability_of_improvement(ours, ours - 10) == 0.0


@given(
    st.lists(st.integers(0, 5), min_size=6, max_size=6), st.lists(st.integers(0, 5), min_size=6, max_size=6)
)
def test_probabilities_of_both_directions_add_up_to_one(ours: list[int], theirs: list[int]) -> None:
    a, b = np.array(ours, float).reshape(2, 3), np.array(theirs, float).reshape(2, 3)
    assert probability_of_improvement(a, b) + probability_of_improvement(b, a) == pytest.approx(1.0)


def test_the_slope_is_within_streams() -> None:
    # Each stream falls by 1 per chunk, and the longer stream is higher: over all chunks, the slope is positive.
    stream = np.array([0, 0, 1, 1, 1, 1])
    position = np.array([0, 1, 0, 1, 2, 3])
    value = np.array([1.0, 0.0, 12.0, 11.0, 10.0, 9.0])
    assert np.polyfit(position, value, 1)[0] > 0
    terms = within_stream_slope(value, position, np.full(6, 512), stream, 2)
    assert terms.numerator.sum() / terms.denominator.sum() == pytest.approx(-1.0)


def test_the_gap_to_uniform_is_the_largest_step_between_the_two_distributions() -> None:
    # Distribution of 0.1, 0.2 and 0.9: 2/3 from 0.2 on, where the uniform one has 0.2.
    assert uniform_gap(np.array([0.9, 0.1, 0.2])) == pytest.approx(2 / 3 - 0.2)
    # All at 1: nothing below it.
    assert uniform_gap(np.array([1.0, 1.0])) == 1.0
    assert uniform_gap((np.arange(100) + 0.5) / 100) == pytest.approx(0.005)


def test_a_rank_correlation_worked_by_hand() -> None:
    # Ranks 1 2 3 4 and 2 1 4 3: 1 − 6·(1+1+1+1) / (4·15) = 0.6; the size of a step is nothing to it.
    once = np.ones((1, 4))
    x, y = np.array([1.0, 2.0, 3.0, 400.0]), np.array([5.0, -7.0, 9.0, 8.0])
    assert (standard_ranks(x, once) * standard_ranks(y, once)).sum() == pytest.approx(0.6)
    assert np.isnan(standard_ranks(np.ones(4), once)).all()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=9),
    st.integers(0, 100),
)
def test_resampled_rank_correlations_are_those_of_the_samples_written_out(
    points: list[tuple[int, int]], seed: int
) -> None:
    x, y = np.array(points, float).T
    counts = np.random.default_rng(seed).multinomial(3, np.full(3, 1 / 3), size=8).astype(float)
    repeats = counts[:, np.arange(len(points)) % 3]
    found = (standard_ranks(x, repeats) * standard_ranks(y, repeats)).sum(axis=1)
    for rho, times in zip(found, repeats.astype(int), strict=True):
        ours, theirs = np.repeat(x, times), np.repeat(y, times)
        varies = np.ptp(ours) > 0 and np.ptp(theirs) > 0
        expected = stats.spearmanr(ours, theirs).statistic if varies else math.nan
        assert rho == pytest.approx(expected, nan_ok=True)


def test_within_streams_the_level_of_a_stream_says_nothing() -> None:
    # In each stream x and y run against each other, while the stream with higher x has higher y.
    x = np.array([1.0, 2.0, 3.0, 11.0, 12.0, 13.0])
    y = np.array([3.0, 2.0, 1.0, 13.0, 12.0, 11.0])
    stream = np.array([0, 0, 0, 1, 1, 1])
    assert stats.spearmanr(x, y).statistic > 0
    assert ranks_within_streams(y, stream, 2) == pytest.approx(np.array([1, 0, -1, 1, 0, -1]) / 3)

    def rho(values: np.ndarray, counts: list[float]) -> float:
        ours, theirs = (ranks_within_streams(v, stream, 2) for v in (x, values))
        return float(resampled_correlation(ours, theirs, stream, np.array([counts]))[0])

    assert rho(y, [1.0, 1.0]) == pytest.approx(-1.0)
    # Two of three pairs in order in the first stream (rho 0.5), all against in the other.
    mixed = np.array([1.0, 3.0, 2.0, 3.0, 2.0, 1.0])
    assert rho(mixed, [1.0, 1.0]) == pytest.approx((0.5 - 1.0) / 2)
    assert rho(mixed, [2.0, 0.0]) == pytest.approx(0.5)


def test_the_envelope_is_convex_and_never_rises() -> None:
    # At cost 2 the line from 3.0 to 1.0 is at 2.0, below 2.5; the point at cost 4 is worse than a cheaper one.
    envelope = lower_envelope(np.array([4.0, 1.0, 3.0, 2.0, 3.0]), np.array([1.5, 3.0, 1.0, 2.5, 1.2]))
    assert envelope.cost.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert envelope.loss == pytest.approx([3.0, 2.0, 1.0, 1.0])


def test_the_mean_under_an_envelope_by_trapezoids() -> None:
    losses = np.array([3.0, 1.0])
    envelope = lower_envelope(np.array([1.0, 3.0]), losses)
    assert envelope.weights_between(1.0, 3.0) == pytest.approx([0.5, 0.5])
    # From 2 at cost 2 to 1 at cost 3, then level to cost 5: (1.5 · 1 + 1 · 2) / 3.
    assert envelope.weights_between(2.0, 5.0) @ losses == pytest.approx(3.5 / 3)
    with pytest.raises(ValueError, match="the cheapest point costs 1"):
        envelope.weights_between(0.5, 2.0)


def test_a_point_above_the_envelope_has_no_weight() -> None:
    envelope = lower_envelope(np.array([1.0, 2.0, 3.0, 3.0]), np.array([3.0, 2.5, 1.0, 1.2]))
    assert envelope.share == pytest.approx(np.array([[1, 0, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 1, 0]]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.floats(0, 5)), min_size=2, max_size=6))
def test_more_points_never_raise_the_envelope(points: list[tuple[int, float]]) -> None:
    cost, loss = np.array(points, float).T
    whole, part = lower_envelope(cost, loss), lower_envelope(cost[:-1], loss[:-1])
    at = part.cost
    assert (np.interp(at, whole.cost, whole.loss) <= part.loss + 1e-9).all()
    slopes = np.diff(whole.loss) / np.diff(whole.cost)
    assert (slopes <= 1e-9).all()
    assert (np.diff(slopes) >= -1e-6).all()
    assert whole.share.sum(axis=1) == pytest.approx(np.ones(len(whole.cost)))
    assert whole.share @ loss == pytest.approx(whole.loss)


def test_a_correlation_interval_is_students_on_the_scale_of_artanh() -> None:
    # z = 0.5 in all streams and 0.4, 0.5, 0.6 without each: pseudo-values 0.7, 0.5, 0.3.
    found = correlation_interval(math.tanh(0.5), np.tanh([0.4, 0.5, 0.6]), 0.95)
    half = 4.302653 * 0.2 / math.sqrt(3)
    assert found == pytest.approx((math.tanh(0.5 - half), math.tanh(0.5 + half)), abs=1e-6)
    assert correlation_interval(1.0, np.ones(4), 0.95) == pytest.approx((1.0, 1.0))
    assert correlation_interval(0.5, np.array([0.5]), 0.95) is None
    assert correlation_interval(0.5, np.array([0.5, math.nan, 0.4]), 0.95) is None


def test_a_correlation_interval_holds_zero_as_often_as_it_says() -> None:
    # Eight streams of five chunks; in each stream, features and gains have levels of their own.
    rng = np.random.default_rng(0)
    stream = np.repeat(np.arange(8), 5)
    repeats = np.concatenate([np.ones((1, 8)), 1 - np.eye(8)])[:, stream]
    held = 0
    for _ in range(600):
        x, y = 0.6 * rng.normal(size=(2, 8))[:, stream] + 0.8 * rng.normal(size=(2, 40))
        rho = (standard_ranks(x, repeats) * standard_ranks(y, repeats)).sum(axis=1)
        found = correlation_interval(float(rho[0]), rho[1:], 0.95)
        assert found is not None
        held += found.low <= 0 <= found.high
    assert held / 600 >= 0.935


def test_pass_at_k_equals_its_definition_and_refuses_what_it_cannot_know() -> None:
    for n, correct, k in ((5, 0, 1), (5, 2, 1), (5, 2, 3), (10, 3, 10), (10, 7, 4), (1, 1, 1)):
        exact = 1 - math.comb(n - correct, k) / math.comb(n, k)
        assert pass_at_k(n, correct, k) == pytest.approx(exact)
    assert 0 < pass_at_k(4000, 1, 100) < 1
    assert pass_at_k(400, 200, 399) == 1.0
    with pytest.raises(PonderTTTError, match="pass@10 cannot be estimated from 5 samples"):
        pass_at_k(5, 5, 10)
    with pytest.raises(PonderTTTError, match="impossible"):
        pass_at_k(5, 6, 1)
