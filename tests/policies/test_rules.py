"""Rules that look at no signal: what they cost, and that nothing but their arguments moves them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.actions import Action
from ponderttt.policies.base import Observation
from ponderttt.policies.budget import HORIZON, NOMINAL_COSTS
from ponderttt.policies.rules import Fixed, Random, Schedule
from ponderttt.seeds import named_key

COSTS = np.array(NOMINAL_COSTS)
SEEN = Observation(*(jnp.asarray(0.0) for _ in Observation._fields))


@pytest.mark.parametrize("action", list(Action))
def test_a_fixed_policy_decides_the_same_whatever_it_sees(action):
    policy = Fixed(action)
    for seed in range(3):
        seen = Observation(*(jnp.asarray(float(seed)) for _ in Observation._fields))
        decision = policy.decide(policy.params, policy.init(), seen, jax.random.key(seed))
        assert int(decision.action) == action
        assert np.isnan(decision.rank) and np.isnan(decision.cuts).all() and decision.cuts.shape == (3,)
    assert policy.budget is None


def test_a_schedule_follows_its_actions_and_goes_on_with_the_last(play):
    policy = Schedule((Action.UPDATE_4, Action.SKIP, Action.UPDATE_1))
    (long,), (short,) = play(policy, [6]), play(policy, [2])
    assert list(long.action) == [3, 0, 1, 1, 1, 1]
    assert list(short.action) == [3, 0]
    assert np.isnan(long.rank).all()
    assert policy.budget is None


def walk(policy: Random, seed: int, stream: str, chunks: int) -> np.ndarray:
    """The costs of one stream with the keys of the loop."""
    decide, state, costs = jax.jit(type(policy).decide), policy.init(), []
    for t in range(chunks):
        seen = SEEN._replace(
            chunk_index=jnp.asarray(t),
            chunks_left=jnp.asarray(chunks - t - 1),
            budget_left=jnp.asarray(np.float32(policy.budget * chunks - sum(costs))),
        )
        decision = decide(policy.params, state, seen, named_key(seed, "policy", stream, t))
        state = decision.state
        costs.append(Action(int(decision.action)).nominal_cost)
    return np.array(costs)


@pytest.fixture(scope="module")
def policies() -> dict[float, Random]:
    return {budget: Random(budget) for budget in (1.5, 2.0, 3.0, 5.0)}


@pytest.mark.parametrize("chunks", [6, 8, 40])
@pytest.mark.parametrize("budget", [1.5, 2.0, 3.0, 5.0])
def test_random_actions_cost_exactly_the_budget_of_each_stream(budget, chunks, policies, play):
    """The total that is spent is exact, not only its expectation."""
    spent = [COSTS[stream.action].sum() for stream in play(policies[budget], [chunks] * 4)]
    whole = budget * chunks
    # Costs are 1, 3, 6, 12: not every total exists, and none is exceeded.
    assert all(whole - 2 < total <= whole for total in spent)
    assert len(set(spent)) == 1


def test_streams_beyond_the_horizon_are_matched_over_their_last_chunks(policies, play):
    (stream,) = play(policies[3.0], [HORIZON + 40])
    costs = COSTS[stream.action]
    assert costs.sum() == pytest.approx(3.0 * len(costs), abs=1)
    assert set(costs) == set(COSTS)


def test_all_sequences_of_the_total_are_equally_likely(policies, play):
    """Six chunks at 3× have 12 units for five: two UPDATE_2, one UPDATE_1 and two SKIP, in 30 orders; the last is SKIP."""
    streams = play(policies[3.0], [6] * 3000)
    drawn = [tuple(COSTS[stream.action]) for stream in streams]
    assert {sequence[-1] for sequence in drawn} == {1.0}
    assert {tuple(sorted(sequence)) for sequence in drawn} == {(1.0, 1.0, 1.0, 3.0, 6.0, 6.0)}
    counts = np.array([drawn.count(sequence) for sequence in set(drawn)])
    # 100 draws of each are expected; χ² with 29 degrees of freedom is above 58 once in a thousand.
    assert len(counts) == 30
    assert ((counts - 100) ** 2 / 100).sum() < 58


def test_the_rank_of_a_random_decision_is_its_draw_and_says_the_action(policies, play):
    for stream in play(policies[3.0], [20] * 5):
        assert np.isnan(stream.score).all()
        assert len(set(stream.rank)) == 20
        np.testing.assert_array_equal(stream.action, (stream.cuts <= stream.rank[:, None]).sum(1))


def test_another_seed_and_another_stream_draw_other_actions(policies):
    first = walk(policies[5.0], 0, "s", 20)
    assert np.array_equal(first, walk(policies[5.0], 0, "s", 20))
    assert not np.array_equal(first, walk(policies[5.0], 1, "s", 20))
    assert not np.array_equal(first, walk(policies[5.0], 0, "t", 20))
