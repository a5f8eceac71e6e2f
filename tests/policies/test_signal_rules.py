"""Rules that follow a signal: decided by hand, on budget to the unit, and by the past only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponderttt.policies.budget import HORIZON, NOMINAL_COSTS, whole_units
from ponderttt.policies.rules import Random
from ponderttt.policies.signal_rules import Adaptive, Percentile, Reconstruction, percentile_rank

FIVE = (1.0, 2.0, 3.0, 4.0, 5.0)
#: Counted FLOPs: in the ratio of the steps, without a common measure, and hardly more than SKIP.
FLOPS = {
    "even": (1.0, 1.041, 1.082, 1.164),
    "odd": (1.0, 1.0237, 1.0419, 1.0771),
    "tiny": (1.0, 1.000001, 1.000002, 1.000004),
}
#: Every kind of rule that holds a budget.
RULES: dict[str, Callable[..., Any]] = {
    "random": lambda budget, costs: Random(budget, costs),
    "entropy": lambda budget, costs: Percentile("entropy", FIVE, budget, costs),
    "shares": lambda budget, costs: Percentile("loss", FIVE, budget, costs, (0.0, 0.3, 0.4, 0.3)),
    "reconstruction": lambda budget, costs: Reconstruction(FIVE, budget, costs),
    "adaptive": lambda budget, costs: Adaptive(FIVE, budget, costs),
}


@pytest.mark.parametrize(
    ("value", "rank"),
    [(0.5, 0.0), (1.0, 0.1), (1.5, 0.2), (3.0, 0.5), (3.5, 0.6), (5.0, 0.9), (9.0, 1.0), (np.inf, 1.0)],
)
def test_the_percentile_among_five_values_by_hand(value, rank):
    assert float(percentile_rank(jnp.asarray(value), jnp.asarray(FIVE))) == pytest.approx(rank)


def test_equal_calibration_values_share_their_ranks_and_nothing_measured_ranks_lowest():
    values = jnp.asarray([1.0, 2.0, 2.0, 2.0, 7.0])
    assert float(percentile_rank(jnp.asarray(2.0), values)) == pytest.approx(0.2 + 0.6 / 2)
    assert float(percentile_rank(jnp.asarray(jnp.nan), values)) == 0


def test_a_percentile_rule_over_four_chunks_by_hand(play):
    """7 units over three chunks are SKIP, UPDATE_1 and UPDATE_2 in any order: cuts 1/3, 2/3, 1, so rank 0.5 takes
    UPDATE_1.  5 units over two: cuts 1/2, 1/2, 1, so 0.7 takes UPDATE_2.  Nothing is left for the third, and nothing can
    help after the fourth."""
    (stream,) = play(Percentile("entropy", FIVE, 1 + 7 / 4), [4], [[3.0, 4.0, 9.0, 9.0]])
    np.testing.assert_allclose(
        stream.cuts, [[1 / 3, 2 / 3, 1], [0.5, 0.5, 1], [1, 1, 1], [1, 1, 1]], atol=1e-6
    )
    np.testing.assert_allclose(stream.rank, [0.5, 0.7, 1.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(stream.score, [3, 4, 9, 9])
    assert list(stream.action) == [1, 2, 0, 0]


def test_a_low_signal_leaves_the_budget_to_later_chunks(play):
    """Rank 0.1 is below 1/3: SKIP.  7 units over two chunks: cuts 0, 1/2, 1, so 0.3 takes UPDATE_1, the third the rest."""
    (stream,) = play(Percentile("entropy", FIVE, 1 + 7 / 4), [4], [[1.0, 2.0, 1.0, 5.0]])
    assert list(stream.action) == [0, 1, 2, 0]


@pytest.mark.parametrize("signal", ["entropy", "loss", "reconstruction"])
def test_each_signal_is_its_own_field_of_the_observation(signal, seen):
    policy = Percentile(signal, FIVE, 3.0)
    values = {"entropy": 1.5, "loss": 2.5, "reconstruction": 3.5}
    observation = seen._replace(**{name: jnp.asarray(value) for name, value in values.items()})
    decision = policy.decide(policy.params, policy.init(), observation, jax.random.key(0))
    assert float(decision.score) == values[signal]
    assert float(decision.rank) == pytest.approx({"entropy": 0.2, "loss": 0.4, "reconstruction": 0.6}[signal])


def test_streams_like_the_calibration_get_the_shares_that_were_aimed_at(play):
    """0/30/40/30 costs 6.9 on average; 80 streams of 41 chunks, 40 of which spend, from the calibration's distribution."""
    rng = np.random.default_rng(0)
    shares = (0.0, 0.3, 0.4, 0.3)
    policy = Percentile("loss", tuple(rng.normal(2, 0.5, 400)), (40 * 6.9 + 1) / 41, shares=shares)
    streams = play(policy, [41] * 80, rng.normal(2, 0.5, (80, 41)))
    taken = np.bincount(np.concatenate([stream.action[:-1] for stream in streams]), minlength=4)
    np.testing.assert_allclose(taken / taken.sum(), shares, atol=0.02)


def test_expensive_actions_go_to_chunks_of_high_signal(play):
    rng = np.random.default_rng(1)
    signals = rng.normal(2, 0.5, (80, 20))
    streams = play(Percentile("loss", tuple(rng.normal(2, 0.5, 400)), 3.0), [20] * 80, signals)
    actions = np.stack([stream.action for stream in streams])
    assert signals[actions == 3].mean() > signals[actions == 1].mean() + 0.3
    assert signals[actions == 1].mean() > signals[actions == 0].mean() + 0.2


def test_the_moving_average_of_the_gate_over_five_chunks_by_hand(play):
    """Errors 9, 9, 3, 0 rank 1, 1, 0.5, 0 in the calibration.  The average before each chunk is 0.5, 0.55, 0.595,
    0.5855, so the ranks that decide are 1, 0.95, 0.405 and, kept above 0, 0.

    7 units over four chunks are UPDATE_2, UPDATE_1 and two SKIPs: cuts 1/2, 3/4, 1.  After UPDATE_2, 2 units over
    three chunks: cuts 2/3, 1, 1.  Then nothing is left.
    """
    (stream,) = play(Reconstruction(FIVE, 1 + 7 / 5), [5], [[9.0, 9.0, 3.0, 0.0, 9.0]])
    np.testing.assert_allclose(stream.rank[:4], [1, 0.95, 0.405, 0], atol=1e-6)
    np.testing.assert_allclose(stream.cuts[:2], [[0.5, 0.75, 1], [2 / 3, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(stream.score, [9, 9, 3, 0, 9])
    assert list(stream.action) == [2, 1, 0, 0, 0]


def test_the_gate_spreads_the_updates_of_a_stream_that_lies_off_the_calibration(play):
    """Errors that all lie above the calibration: the plain percentile spends everything at once."""
    rng = np.random.default_rng(2)
    errors = rng.uniform(5, 6, (1, 80))
    calibration = tuple(np.linspace(1, 5.2, 100))
    (gate,) = play(Reconstruction(calibration, 3.0), [60], errors)
    (plain,) = play(Percentile("reconstruction", calibration, 3.0), [60], errors)
    costs = np.array(NOMINAL_COSTS)
    late = lambda stream: costs[stream.action][30:].sum() - 30  # noqa: E731
    assert late(plain) < 6
    assert late(gate) > 30


def test_a_gate_without_a_moving_average_is_the_percentile_rule(play):
    signals = np.random.default_rng(3).uniform(0, 6, (4, 20))
    gate = play(Reconstruction(FIVE, 3.0, ema_step=0.0), [20] * 4, signals)
    plain = play(Percentile("reconstruction", FIVE, 3.0), [20] * 4, signals)
    for one, other in zip(gate, plain, strict=True):
        np.testing.assert_array_equal(one.action, other.action)


def test_one_more_and_one_less_by_hand(play):
    """At 2.4× five chunks have 7 units, and the level starts at UPDATE_1, whose cost is nearest.

    Loss 3 is above the median 2: UPDATE_2, 2 units left.  2 is below the average 3: UPDATE_1, 0 left.  5 is above
    2.9: one more would be UPDATE_2, but only SKIP is left.  4 is above 3.11: SKIP again.
    """
    (stream,) = play(Adaptive((1.0, 2.0, 3.0), 2.4), [5], [[3.0, 2.0, 5.0, 4.0, 3.11]])
    assert list(stream.action) == [2, 1, 0, 0, 0]
    np.testing.assert_allclose(stream.score[:4], [1, -1, 2.1, 0.89], atol=1e-6)
    assert np.isnan(stream.rank).all() and np.isnan(stream.cuts).all()


def test_of_two_possible_actions_equally_near_the_cheaper_is_taken(play):
    """5 units over three chunks: one UPDATE_2.  Loss 1 is low: SKIP.  Then 2 is high, but UPDATE_1 would strand 3
    units, and SKIP and UPDATE_2 are equally near.  The last chunk that spends must take what is left."""
    (stream,) = play(Adaptive((1.0, 2.0, 3.0), 1 + 5 / 4), [4], [[1.0, 2.0, 0.0, 9.0]])
    assert list(stream.action) == [0, 0, 2, 0]


def reachable_totals(units: tuple[int, ...], longest: int) -> list[np.ndarray]:
    """Which totals 0, 1, 2 … chunks can have, by adding one chunk after the other."""
    known = np.zeros(longest * max(units) + 1, bool)
    known[0] = True
    rows = [known]
    for _ in range(longest):
        longer = np.zeros_like(known)
        for unit in units:
            longer[unit:] |= rows[-1][: len(known) - unit]
        rows.append(longer)
    return rows


def assert_on_budget(policy: Any, play: Any, signals: np.ndarray, seed: int = 0) -> None:
    """Of every stream of 1 to 80 chunks: the largest total that exists before the last chunk and is not above the budget."""
    units, size = whole_units(policy.costs, policy.budget)
    lengths = np.arange(1, 81)
    possible = reachable_totals(units, 80)
    for chunks, stream in zip(lengths, play(policy, lengths, signals, seed), strict=True):
        allowed = int(np.floor(chunks * (policy.budget - 1.0) / size + 1e-3))
        expected = np.flatnonzero(possible[chunks - 1][: allowed + 1]).max()
        assert stream.action[-1] == 0
        assert np.array(units)[stream.action].sum() == expected, f"{chunks} chunks"


EXTREMES = st.sampled_from([0.0, 1.0, 3.0, 5.0, 99.0, -1e30, 1e30, float("inf"), float("-inf")])


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=12, deadline=None)
@given(
    # In hundredths, so that no total lies within rounding of a whole unit without being one.
    budget=st.one_of(st.integers(150, 600), st.sampled_from([150, 200, 300, 400, 500, 600])).map(
        lambda hundredths: hundredths / 100
    ),
    pattern=st.lists(EXTREMES, min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_every_rule_spends_the_nominal_budget_to_the_unit(rule, budget, pattern, seed, play):
    signals = np.tile(np.resize(np.array(pattern), 80), (80, 1))
    assert_on_budget(RULES[rule](budget, NOMINAL_COSTS), play, signals, seed)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", FLOPS)
def test_every_rule_spends_a_budget_of_flops_to_the_unit(rule, kind, play):
    costs = FLOPS[kind]
    budget = 1 + 0.31 * (costs[3] - 1)
    policy = RULES[rule](budget, costs)
    signals = np.random.default_rng(0).choice([0.0, 1.0, 3.0, 5.0, 99.0], (80, 80))
    assert_on_budget(policy, play, signals)
    # And what that is in FLOPs: the stream's budget, short of a unit, give or take a hundredth of the updates' part.
    _, size = whole_units(costs, budget)
    for chunks, stream in zip(range(1, 81), play(policy, np.arange(1, 81), signals), strict=True):
        spent, allowed = (np.array(costs)[stream.action] - 1).sum(), chunks * (budget - 1)
        assert spent <= 1.01 * allowed + 1e-3 * size
        if chunks >= 20:
            assert spent > 0.97 * allowed - size


@pytest.mark.parametrize("budget", [1.5, 3.0, 6.0, 11.5])
@pytest.mark.parametrize("rule", ["entropy", "reconstruction", "adaptive"])
def test_no_signal_can_break_the_budget_of_a_long_stream(rule, budget, play):
    """Beyond the horizon nothing but the possible holds a rule back: all high, all low, and one after the other."""
    chunks = HORIZON + 40
    signals = [[99.0] * chunks, [-1.0] * chunks, [99.0] * 30 + [-1.0] * (chunks - 30)]
    for stream in play(RULES[rule](budget, NOMINAL_COSTS), [chunks] * 3, signals):
        assert np.array(NOMINAL_COSTS)[stream.action].sum() == budget * chunks


@pytest.mark.parametrize("rule", RULES)
def test_decisions_use_the_past_only(rule, play):
    policy = RULES[rule](3.0, NOMINAL_COSTS)
    before = np.random.default_rng(4).uniform(0, 6, (8, 30))
    after = before.copy()
    after[:, 17:] = 6 - after[:, 17:]
    changed = False
    for old, new in zip(play(policy, [30] * 8, before), play(policy, [30] * 8, after), strict=True):
        for field in ("action", "score", "rank", "cuts"):
            np.testing.assert_array_equal(getattr(old, field)[:17], getattr(new, field)[:17])
        changed |= not np.array_equal(old.action[17:], new.action[17:])
    assert changed == (rule != "random")


@pytest.mark.parametrize("rule", [name for name in RULES if name != "adaptive"])
def test_an_action_is_the_number_of_cuts_up_to_its_rank(rule, play):
    signals = np.random.default_rng(5).uniform(0, 6, (80, 80))
    for stream in play(RULES[rule](3.0, NOMINAL_COSTS), np.arange(1, 81), signals):
        np.testing.assert_array_equal(stream.action, (stream.cuts <= stream.rank[:, None]).sum(1))


def test_no_calibration_value_is_an_error():
    for values in ((), (1.0, float("nan"))):
        with pytest.raises(ValueError, match="calibration values must be finite"):
            Percentile("loss", values, 3.0)
