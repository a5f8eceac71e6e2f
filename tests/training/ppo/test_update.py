"""The update: its first ratio, its early stop, and that it solves what can be solved."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ponderttt.errors import PonderTTTError
from ponderttt.seeds import named_key
from ponderttt.settings.ppo import PidConfig
from ponderttt.training.ppo import losses, pid
from ponderttt.training.ppo.update import log_probs, update

pytestmark = pytest.mark.optimised


def same(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def apart(one, other) -> float:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def steps_taken(learner, opt_state) -> int:
    before, after = (optax.tree.get(state, "count") for state in (learner.opt_state, opt_state))
    return int(after - before)


def updated(bandit, learner, batch, learning_rate=None, **changes):
    config = dataclasses.replace(bandit.config, **changes)
    state = learner.graph, learner.params, learner.opt_state
    return update(*state, batch, jax.random.key(5), config, 0.01, learning_rate)


@pytest.fixture(scope="module")
def moved(bandit):
    """A policy that is no longer uniform, and its rollout."""
    learner = bandit.start(0)
    for _ in range(5):
        learner, _, _ = bandit.advance(learner)
    batch, _ = bandit.gather(learner.graph, learner.params, jax.random.key(1), jnp.asarray(0.0), False)
    return learner, batch


#: Products of different numbers of rows may sum in different orders; which do depends on the processor.
ROUNDING = 3e-6


def test_the_first_ratio_is_1(bandit, moved):
    """Rollouts judge 8 chunks at a time and updates 32 shuffled ones; changed log-probabilities are noticed."""
    learner, batch = moved
    assert float(updated(bandit, learner, batch)[2].first_ratio_error) < ROUNDING
    off = batch._replace(log_prob=batch.log_prob + 0.125)
    assert float(updated(bandit, learner, off)[2].first_ratio_error) == pytest.approx(
        1 - np.exp(-0.125), rel=1e-5
    )


def test_log_probabilities_of_a_rollout_are_those_that_it_was_gathered_with(moved):
    learner, batch = moved
    found = jax.jit(log_probs, static_argnums=0)(
        learner.graph, learner.params, batch.features, batch.allowed, batch.actions
    )
    np.testing.assert_allclose(found, batch.log_prob, rtol=0, atol=ROUNDING)


#: Stops after its first epoch as soon as anything moves.
STRICT = {"kl_limit": 1e-9, "value_clip": 0.2}


def test_beyond_the_kl_limit_later_epochs_change_neither_policy_nor_optimiser(bandit, moved):
    learner, batch = moved
    params, opt_state, stats = updated(bandit, learner, batch, **STRICT)
    one_params, one_state, one_stats = updated(bandit, learner, batch, **STRICT, epochs=1)
    # Two programs, so equal up to rounding; a step would move weights by about 3e-3, and it would be counted.
    assert apart(params, one_params) < 1e-5
    assert apart(opt_state, one_state) < 1e-5
    assert apart(params, learner.params) > 1e-3
    assert steps_taken(learner, opt_state) == bandit.config.minibatches
    assert bool(stats.stopped)
    assert not bool(one_stats.stopped)
    assert float(stats.policy_loss) == pytest.approx(float(one_stats.policy_loss), abs=1e-5)
    assert float(stats.approx_kl) == pytest.approx(float(one_stats.approx_kl), rel=1e-2)
    assert float(stats.approx_kl) > 1e-9


def test_below_the_kl_limit_every_epoch_takes_its_steps(bandit, moved):
    learner, batch = moved
    _, opt_state, stats = updated(bandit, learner, batch, learning_rate=1e-5)
    assert not bool(stats.stopped)
    assert steps_taken(learner, opt_state) == bandit.config.epochs * bandit.config.minibatches


def test_statistics_are_those_of_the_losses_on_the_whole_rollout_when_nothing_moves(bandit, moved):
    learner, batch = moved
    params, _, stats = updated(bandit, learner, batch, learning_rate=0.0, **STRICT)
    assert same(params, learner.params)
    assert float(stats.policy_loss) == pytest.approx(-float(batch.advantage.mean()), abs=1e-6)
    value = losses.value_loss(batch.value, batch.value, batch.value_target, 0.2)
    assert float(stats.value_loss) == pytest.approx(float(value), rel=1e-5)
    cost = losses.value_loss(batch.cost_value, batch.cost_value, batch.cost_value_target, None)
    assert float(stats.cost_value_loss) == pytest.approx(float(cost), rel=1e-5)
    explained = losses.explained_variance(batch.cost_value, batch.cost_value_target)
    assert float(stats.cost_explained_variance) == pytest.approx(float(explained), rel=1e-6)
    assert float(stats.approx_kl) == float(stats.clipfrac) == 0.0
    assert 0.0 < float(stats.entropy) < np.log(4)


def test_the_entropy_bonus_keeps_a_policy_undecided(bandit, moved):
    learner, batch = moved
    still = batch._replace(advantage=jnp.zeros_like(batch.advantage))
    entropies = []
    for weight in (0.0, 1.0):
        state = learner.params, learner.opt_state
        for k in range(4):
            *state, stats = update(learner.graph, *state, still, jax.random.key(k), bandit.config, weight)
        entropies.append(float(stats.entropy))
    assert entropies[1] > entropies[0] + 0.01


def test_minibatches_that_do_not_divide_a_rollout_are_refused(bandit, moved):
    learner, batch = moved
    with pytest.raises(PonderTTTError, match="minibatches must divide the 128 chunks of a rollout, got 5"):
        config = dataclasses.replace(bandit.config, minibatches=5, rollout=5)
        update(learner.graph, learner.params, learner.opt_state, batch, jax.random.key(0), config, 0.0)


def test_seeds_are_independent_of_the_order_in_which_they_are_trained(bandit):
    def trained(learner):
        for _ in range(3):
            learner, _, _ = bandit.advance(learner)
        return learner

    one_then_other = [trained(bandit.start(seed)) for seed in (1, 2)]
    in_turns = [bandit.start(2), bandit.start(1)]
    for _ in range(3):
        in_turns = [bandit.advance(learner)[0] for learner in in_turns]
    for learner, other in zip(one_then_other, reversed(in_turns), strict=True):
        assert same((learner.params, learner.opt_state), (other.params, other.opt_state))
    assert not same(one_then_other[0].params, one_then_other[1].params)


def test_a_bandit_is_solved_update_where_it_pays_and_skip_where_it_hurts(bandit):
    learner = bandit.start(3)
    for _ in range(60):
        learner, stats, _ = bandit.advance(learner)
        assert float(stats.first_ratio_error) == 0.0
    batch, _ = bandit.gather(learner.graph, learner.params, named_key(3, "test"), jnp.asarray(0.0), False)
    pays = batch.features[..., 0] > 0
    right = jnp.where(pays, batch.actions == 3, batch.actions == 0)
    assert float(right.mean()) > 0.95
    assert float(stats.explained_variance) > 0.5


def test_where_every_update_pays_the_controller_holds_the_cost_at_its_limit(bandit):
    """The best policy without a limit costs 12; it is held to 4 within 5 % over the last iterations."""
    config = PidConfig(1.0, 0.1, 0.5, smoothing=0.5, derivative_span=1)
    learner, state, lam, costs = bandit.start(4), pid.start(config), 0.0, []
    for _ in range(150):
        learner, _, cost = bandit.advance(learner, lam, always_pays=True)
        state, terms = pid.step(config, state, cost / 4.0)
        lam = terms.lambda_
        costs.append(float(cost))
    assert max(costs[:60]) > 6.0
    assert np.mean(costs[-50:]) == pytest.approx(4.0, rel=0.05)
