"""The policies that are not trained: what they cost on average, and that nothing but their arguments moves them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ponderttt.actions import Action
from ponderttt.policies.base import Observation
from ponderttt.policies.rules import HORIZON, Fixed, Random, matched_probabilities
from ponderttt.seeds import named_key

COSTS = np.array([action.nominal_cost for action in Action])
SEEN = Observation(*(jnp.asarray(0.0) for _ in Observation._fields))


def test_actions_have_the_nominal_costs_that_budgets_are_stated_in():
    assert [(a.name, a.steps, a.nominal_cost) for a in Action] == [
        ("SKIP", 0, 1.0),
        ("UPDATE_1", 1, 3.0),
        ("UPDATE_2", 2, 6.0),
        ("UPDATE_4", 4, 12.0),
    ]


@pytest.mark.parametrize("action", list(Action))
def test_a_fixed_policy_decides_the_same_whatever_it_sees(action):
    policy = Fixed(action)
    for seed in range(3):
        seen = Observation(*(jnp.asarray(float(seed)) for _ in Observation._fields))
        assert int(policy.decide(policy.params, policy.init(), seen, jax.random.key(seed)).action) == action


@given(st.floats(1.001, 11.999))
def test_matched_probabilities_cost_exactly_the_budget(budget):
    chances = matched_probabilities(budget)
    assert chances.min() >= 0
    assert chances.sum() == pytest.approx(1.0, abs=1e-12)
    assert chances @ COSTS == pytest.approx(budget, abs=1e-9)


@settings(max_examples=10)
@given(st.floats(1.5, 11.0))
def test_matched_probabilities_have_the_largest_entropy_at_their_cost(budget):
    """Against a general optimiser that knows nothing of the closed form."""

    def negative_entropy(chances: np.ndarray) -> float:
        return float(np.sum(chances * np.log(np.maximum(chances, 1e-300))))

    found = minimize(
        negative_entropy,
        np.full(len(COSTS), 1 / len(COSTS)),
        bounds=[(1e-12, 1.0)] * len(COSTS),
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1},
            {"type": "eq", "fun": lambda p: p @ COSTS - budget},
        ],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    ours = matched_probabilities(budget)
    assert negative_entropy(ours) <= found.fun + 1e-6
    np.testing.assert_allclose(ours, found.x, atol=1e-3)


def test_the_mean_cost_of_uniform_actions_gives_uniform_actions():
    np.testing.assert_allclose(matched_probabilities(COSTS.mean()), 0.25, atol=1e-12)


@pytest.mark.parametrize("budget", [0.0, 1.0, 12.0, 20.0])
def test_a_cost_that_no_mixture_has_is_refused(budget):
    with pytest.raises(ValueError, match="no mixture of actions"):
        matched_probabilities(budget)


def play(policy: Random, seed: int, stream: str, chunks: int) -> np.ndarray:
    """The costs of one stream, as the loop would run it."""
    decide, spent, costs = jax.jit(type(policy).decide), 0.0, []
    for t in range(chunks):
        seen = SEEN._replace(
            chunks_left=jnp.asarray(chunks - t - 1),
            budget_left=jnp.asarray(np.float32(policy.budget * chunks - spent)),
        )
        action = decide(policy.params, policy.init(), seen, named_key(seed, "policy", stream, t)).action
        costs.append(Action(int(action)).nominal_cost)
        spent += costs[-1]
    return np.array(costs)


@pytest.fixture(scope="module")
def policies() -> dict[float, Random]:
    return {budget: Random(budget) for budget in (1.5, 2.0, 3.0, 5.0)}


@pytest.mark.parametrize("chunks", [6, 8, 40])
@pytest.mark.parametrize("budget", [1.5, 2.0, 3.0, 5.0])
def test_random_actions_cost_exactly_the_budget_of_each_stream(budget, chunks, policies):
    """Rate-matched is a promise about what was spent, not about an expectation (trap 15)."""
    spent = [play(policies[budget], 0, f"s{i}", chunks).sum() for i in range(4)]
    whole = budget * chunks
    # Costs are 1, 3, 6, 12: not every total exists, and none is exceeded.
    assert all(whole - 2 < total <= whole for total in spent)
    assert len(set(spent)) == 1


def test_streams_beyond_the_horizon_are_matched_over_their_last_chunks(policies):
    costs = play(policies[3.0], 1, "long", HORIZON + 40)
    assert costs.sum() == pytest.approx(3.0 * len(costs), abs=1)
    assert set(costs) == set(COSTS)


def test_all_sequences_of_the_total_are_equally_likely(policies):
    """Six chunks at 3× have 61 such sequences: six UPDATE_1, or two UPDATE_2, one UPDATE_1 and three SKIP."""
    drawn = [tuple(play(policies[3.0], 0, f"s{i}", 6)) for i in range(244)]
    kinds = {tuple(sorted(sequence)) for sequence in drawn}
    assert kinds <= {(3.0,) * 6, (1.0, 1.0, 1.0, 3.0, 6.0, 6.0)}
    # 244 draws from 61 equally likely sequences leave about one unseen, and repeat none much more than 4 times.
    assert len(set(drawn)) > 52
    assert max(drawn.count(sequence) for sequence in set(drawn)) <= 14


def test_another_seed_and_another_stream_draw_other_actions(policies):
    first = play(policies[5.0], 0, "s", 20)
    assert np.array_equal(first, play(policies[5.0], 0, "s", 20))
    assert not np.array_equal(first, play(policies[5.0], 1, "s", 20))
    assert not np.array_equal(first, play(policies[5.0], 0, "t", 20))
