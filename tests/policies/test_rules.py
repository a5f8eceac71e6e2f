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
from ponderttt.policies.rules import Fixed, Random, matched_probabilities
from ponderttt.seeds import named_key

COSTS = np.array([action.nominal_cost for action in Action])
SEEN = Observation(*(jnp.asarray(0.0) for _ in Observation._fields))


def draw(policy: Random, keys: jax.Array) -> np.ndarray:
    """The actions of ``policy`` for many keys."""
    decide = jax.jit(
        jax.vmap(lambda key: type(policy).decide(policy.params, policy.init(), SEEN, key).action)
    )
    return np.asarray(decide(keys))


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


@pytest.mark.parametrize("budget", [2.0, 3.0, 5.0])
def test_random_actions_cost_the_budget_in_the_long_run(budget):
    """The control is matched: within four standard errors of its sample mean."""
    count = 20_000
    costs = COSTS[draw(Random(budget), jax.random.split(jax.random.key(5), count))]
    chances = matched_probabilities(budget)
    spread = np.sqrt(chances @ COSTS**2 - budget**2)
    assert abs(costs.mean() - budget) < 4 * spread / np.sqrt(count)
    assert set(costs) == set(COSTS)


def test_random_decisions_do_not_depend_on_the_order_in_which_streams_are_read():
    """Keys are named by stream and chunk, so a resumed or regrouped run decides the same."""
    places = [(stream, t) for stream in ("b", "a", "c") for t in range(20)]

    def decisions(order: list[tuple[str, int]]) -> dict[tuple[str, int], int]:
        keys = jnp.stack([named_key(3, "policy", stream, t) for stream, t in order])
        return dict(zip(order, draw(Random(4.0), keys).tolist(), strict=True))

    first = decisions(places)
    assert first == decisions(sorted(places, reverse=True))
    by_stream = {tuple(first[stream, t] for t in range(20)) for stream in "abc"}
    assert len(by_stream) == 3


def test_another_seed_draws_other_actions():
    def actions(seed: int) -> list[int]:
        keys = jnp.stack([named_key(seed, "policy", "s", t) for t in range(20)])
        return draw(Random(4.0), keys).tolist()

    assert actions(0) == actions(0)
    assert actions(0) != actions(1)
