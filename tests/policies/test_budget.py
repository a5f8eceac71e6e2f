"""Budgets: totals that are met to the unit, and the cuts that say what a rank buys."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.policies.budget import (
    HORIZON,
    NOMINAL_COSTS,
    budget_tables,
    cuts,
    matched_probabilities,
    next_log_weights,
    spend_by_rank,
    whole_units,
)

#: Counted FLOPs of an adapter whose updates cost little beside the backbone.
FLOPS = (1.0, 1.041, 1.082, 1.164)
#: Updates whose costs have no common measure.
ODD_FLOPS = (1.0, 1.0237, 1.0419, 1.0771)

CUTS, WEIGHTS, SPEND = jax.jit(cuts), jax.jit(next_log_weights), jax.jit(spend_by_rank)


def test_actions_have_the_nominal_costs_that_budgets_are_stated_in():
    assert [(a.name, a.steps, a.nominal_cost) for a in Action] == [
        ("SKIP", 0, 1.0),
        ("UPDATE_1", 1, 3.0),
        ("UPDATE_2", 2, 6.0),
        ("UPDATE_4", 4, 12.0),
    ]


@given(st.floats(1.001, 11.999))
def test_matched_probabilities_cost_exactly_the_budget(budget):
    chances = matched_probabilities(NOMINAL_COSTS, budget)
    assert chances.min() >= 0
    assert chances.sum() == pytest.approx(1.0, abs=1e-12)
    assert chances @ NOMINAL_COSTS == pytest.approx(budget, abs=1e-9)


@settings(max_examples=10)
@given(st.floats(1.5, 11.0), st.sampled_from([(1, 1, 1, 1), (1, 3, 4, 3), (40, 30, 20, 10)]))
def test_matched_probabilities_are_the_nearest_to_the_shares_at_their_cost(budget, shares):
    """Against a general optimiser that knows nothing of the closed form; equal shares are the largest entropy."""
    target = np.array(shares) / sum(shares)

    def divergence(chances: np.ndarray) -> float:
        return float(np.sum(chances * np.log(np.maximum(chances, 1e-300) / target)))

    found = minimize(
        divergence,
        np.full(len(NOMINAL_COSTS), 1 / len(NOMINAL_COSTS)),
        bounds=[(1e-12, 1.0)] * len(NOMINAL_COSTS),
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1},
            {"type": "eq", "fun": lambda p: p @ NOMINAL_COSTS - budget},
        ],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    ours = matched_probabilities(NOMINAL_COSTS, budget, shares)
    assert divergence(ours) <= found.fun + 1e-6
    np.testing.assert_allclose(ours, found.x, atol=1e-3)


def test_the_mean_cost_of_uniform_actions_gives_uniform_actions():
    np.testing.assert_allclose(matched_probabilities(NOMINAL_COSTS, np.mean(NOMINAL_COSTS)), 0.25, atol=1e-12)


def test_shares_of_the_right_cost_are_kept_and_others_are_tilted_by_hand():
    """0/30/40/30 costs 0.9 + 2.4 + 3.6 = 6.9; at another cost c the ratios change by exp(−λ·Δc) with one λ."""
    shares = (0.0, 0.3, 0.4, 0.3)
    np.testing.assert_allclose(matched_probabilities(NOMINAL_COSTS, 6.9, shares), shares, atol=1e-6)
    tilted = matched_probabilities(NOMINAL_COSTS, 5.0, shares)
    assert tilted @ NOMINAL_COSTS == pytest.approx(5.0)
    assert tilted[0] < 1e-6
    first = np.log(tilted[1] / 0.3) - np.log(tilted[2] / 0.4)
    second = np.log(tilted[2] / 0.4) - np.log(tilted[3] / 0.3)
    assert first / 3 == pytest.approx(second / 6)


def test_an_action_of_share_0_comes_in_only_where_the_budget_needs_it():
    """Without SKIP nothing costs less than 3 on average, so a budget of 2 is half SKIP, half UPDATE_1."""
    np.testing.assert_allclose(
        matched_probabilities(NOMINAL_COSTS, 2.0, (0.0, 0.3, 0.4, 0.3)), [0.5, 0.5, 0, 0], atol=1e-6
    )


@pytest.mark.parametrize("budget", [0.0, 1.0, 12.0, 20.0])
def test_a_nominal_cost_that_no_mixture_has_is_refused(budget):
    with pytest.raises(
        PonderTTTError, match=r"no mixture of actions .* nominal cost: .* between 1 and 12"
    ) as error:
        budget_tables(NOMINAL_COSTS, budget)
    assert "\n" not in str(error.value)


def test_a_cost_in_flops_that_no_mixture_has_is_refused_with_its_range_and_unit():
    with pytest.raises(PonderTTTError, match=r"counted FLOPs: .* between 1 and 1.164"):
        budget_tables(FLOPS, 3.0)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0, 0, 0, 0), (1, -1, 1, 1), (float("nan"), 1, 1, 1)])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(PonderTTTError, match="shares of actions must be four numbers"):
        budget_tables(NOMINAL_COSTS, 3.0, shares)


@given(st.floats(1.001, 11.999))
def test_nominal_costs_are_whole_units_as_they_are(budget):
    assert whole_units(NOMINAL_COSTS, budget) == ((0, 2, 5, 11), 1.0)


def test_flops_in_the_ratio_of_their_steps_need_few_units():
    units, size = whole_units(FLOPS, 1.05)
    assert units == (0, 1, 2, 4)
    assert size == pytest.approx(0.041)


@settings(max_examples=60)
@given(
    st.lists(st.floats(1e-6, 1.0), min_size=3, max_size=3, unique=True),
    st.floats(0.02, 0.98),
)
def test_whole_units_move_no_stream_by_more_than_a_hundredth_of_its_updates_budget(steps, share):
    costs = [1.0, *(1.0 + s for s in sorted(steps))]
    budget = 1.0 + share * (costs[-1] - 1.0)
    units, size = whole_units(costs, budget)
    assert np.abs(np.array(costs) - 1.0 - np.array(units) * size).max() <= 0.01 * (budget - 1.0)


def reference_cuts(units, total: int, chunks: int, shares=(1, 1, 1, 1)) -> list[float]:
    """All sequences of the total, one by one."""
    mass = np.zeros(4)
    for sequence in itertools.product(range(4), repeat=chunks):
        if sum(units[a] for a in sequence) == total:
            mass[sequence[0]] += np.prod([shares[a] for a in sequence])
    return list(np.cumsum(mass)[:3] / mass.sum())


def test_cuts_of_two_chunks_before_the_last_counted_by_hand():
    """Of 4 units above SKIP (0, 2, 5, 11) two chunks make UPDATE_1 twice, of 5 SKIP and UPDATE_2 in either order, of 7
    UPDATE_1 and UPDATE_2 in either order."""
    tables = budget_tables(NOMINAL_COSTS, 3.0)
    np.testing.assert_allclose(CUTS(tables, 4, 2), [0, 1, 1])
    np.testing.assert_allclose(CUTS(tables, 5, 2), [0.5, 0.5, 1])
    np.testing.assert_allclose(CUTS(tables, 7, 2), [0, 0.5, 1])
    # 6 is no total of two chunks: 5 is.
    np.testing.assert_allclose(CUTS(tables, 6, 2), [0.5, 0.5, 1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_nothing_is_spent_after_the_last_chunk(units_left, rank):
    np.testing.assert_array_equal(CUTS(_TABLES, units_left, 0), [1, 1, 1])
    assert SPEND(_TABLES, units_left, 0, rank).action == Action.SKIP


def test_cuts_of_three_chunks_before_the_last_counted_by_hand():
    """11 units over three chunks: UPDATE_4 and two SKIPs, 3 orders.  9 units: two UPDATE_1 and an UPDATE_2, 3 orders,
    2 of which begin with UPDATE_1.  7 units: SKIP, UPDATE_1, UPDATE_2, in 6 orders."""
    tables = budget_tables(NOMINAL_COSTS, 3.0)
    np.testing.assert_allclose(CUTS(tables, 11, 3), [2 / 3] * 3, atol=1e-6)
    np.testing.assert_allclose(CUTS(tables, 9, 3), [0, 2 / 3, 1], atol=1e-6)
    np.testing.assert_allclose(CUTS(tables, 7, 3), [1 / 3, 2 / 3, 1], atol=1e-6)


def test_shares_weigh_sequences_by_hand():
    """Units 0, 1, 2, 4 and 2 left over two chunks: SKIP+2, 2+SKIP, 1+1 with weights .4·.2, .2·.4, .3·.3."""
    tables = budget_tables(FLOPS, 1.05, (0.4, 0.3, 0.2, 0.1))
    whole = 0.08 + 0.09 + 0.08
    np.testing.assert_allclose(CUTS(tables, 2, 2), [0.08 / whole, 0.17 / whole, 1], atol=1e-6)


@pytest.mark.parametrize("costs", [NOMINAL_COSTS, FLOPS])
@pytest.mark.parametrize("shares", [None, (0.4, 0.3, 0.2, 0.1)])
def test_cuts_equal_a_count_of_all_sequences(costs, shares):
    budget = costs[0] + 0.3 * (costs[3] - costs[0])
    units, _ = whole_units(costs, budget)
    tables = budget_tables(costs, budget, shares)
    for chunks in (1, 2, 4):
        totals = {sum(s) for s in itertools.product(units, repeat=chunks)}
        for total in sorted(totals):
            np.testing.assert_allclose(
                CUTS(tables, total, chunks),
                reference_cuts(units, total, chunks, shares or (1, 1, 1, 1)),
                atol=2e-6,
            )


def test_without_skip_a_stream_skips_only_as_often_as_its_total_needs():
    """Two chunks of 7 units are UPDATE_1 and UPDATE_2; 2 units need a SKIP."""
    tables = budget_tables(NOMINAL_COSTS, 5.0, (0, 0.3, 0.4, 0.3))
    np.testing.assert_allclose(CUTS(tables, 7, 2), [0, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(CUTS(tables, 2, 2), [0.5, 1, 1], atol=1e-6)
    # 11 over three chunks: with SKIP only.  12 over three: 2+5+5.
    np.testing.assert_allclose(CUTS(tables, 12, 3), [0, 1 / 3, 1], atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 90), st.floats(0, 1))
def test_an_action_is_taken_exactly_if_the_rest_can_be_spent_to_the_unit(units_left, chunks_left, rank):
    total = max(t for t in _reachable(chunks_left) if t <= units_left)
    possible = [total - unit in _reachable(chunks_left - 1) for unit in (0, 2, 5, 11)]
    assert list(np.isfinite(WEIGHTS(_TABLES, units_left, chunks_left))) == possible
    assert possible[int(SPEND(_TABLES, units_left, chunks_left, rank).action)]


_TABLES = budget_tables(NOMINAL_COSTS, 3.0)


def _reachable(chunks: int, known: dict[int, frozenset[int]] = {0: frozenset({0})}) -> frozenset[int]:  # noqa: B006
    """Totals of so many chunks, by adding one chunk after the other."""
    if chunks not in known:
        known[chunks] = frozenset(t + u for t in _reachable(chunks - 1) for u in (0, 2, 5, 11))
    return known[chunks]


def test_beyond_the_horizon_the_shares_are_those_of_the_mean_cost():
    tables = budget_tables(NOMINAL_COSTS, 3.0)
    expected = np.cumsum(matched_probabilities(NOMINAL_COSTS, 3.0))[:3]
    np.testing.assert_allclose(CUTS(tables, 2 * (HORIZON + 9), HORIZON + 9), expected, atol=1e-6)
