"""Losses and diagnostics of PPO, on numbers worked by hand."""

from __future__ import annotations

from math import log

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.training.ppo import losses


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        # Moved too far the way the advantage points: the loss is that of the border, and pulls no more.
        (1.5, 1.0, -1.2, 0.0),
        (0.5, -1.0, 0.8, 0.0),
        # Moved too far the wrong way: drawn back with full force.
        (0.5, 1.0, -0.5, -0.5),
        (1.5, -1.0, 1.5, 1.5),
        # Within the borders.
        (1.1, 2.0, -2.2, -2.2),
    ],
)
def test_the_policy_loss_is_clipped_only_where_moving_on_would_be_rewarded(ratio, advantage, loss, slope):
    def of(log_prob):
        return losses.clipped_policy_loss(log_prob, jnp.zeros(1), jnp.full(1, advantage), 0.2)

    value, gradient = jax.value_and_grad(of)(jnp.full(1, log(ratio)))
    assert float(value) == pytest.approx(loss, rel=1e-6)
    assert float(gradient[0]) == pytest.approx(slope, rel=1e-6)


def test_the_value_loss_takes_the_larger_of_both_errors_and_halves_it():
    def loss(value, target, clip):
        return float(losses.value_loss(jnp.full(1, value), jnp.zeros(1), jnp.full(1, target), clip))

    assert loss(1.0, 1.0, None) == 0.0
    # The old value is 0.  On target, but 1 away from it: the error of 0.2, which is −0.8, counts.
    assert loss(1.0, 1.0, 0.2) == pytest.approx(0.5 * 0.64)
    # Far on the wrong side: its own error of −2 counts, and not that of −0.2.
    assert loss(-1.0, 1.0, 0.2) == pytest.approx(0.5 * 4.0)
    assert loss(0.1, 1.0, 0.2) == pytest.approx(0.5 * 0.81)


def test_a_value_that_went_further_than_the_clip_towards_its_target_is_not_pulled():
    slope = jax.grad(lambda v: losses.value_loss(v, jnp.zeros(1), jnp.ones(1), 0.2))(jnp.full(1, 0.5))
    assert float(slope[0]) == 0.0


def test_forbidden_actions_have_no_probability_no_entropy_and_no_gradient():
    logits = jnp.asarray([[3.0, 1.0, 1.0, -2.0], [0.0, 0.0, 0.0, 0.0]])
    allowed = jnp.asarray([[False, True, True, False], [True, True, True, True]])

    def of(logits):
        return losses.entropy(losses.masked(logits, allowed))

    value, gradient = jax.value_and_grad(of)(logits)
    assert float(value) == pytest.approx((log(2) + log(4)) / 2)
    assert np.all(np.isfinite(gradient))
    assert not np.any(gradient[0, jnp.asarray([0, 3])])
    chosen = losses.log_prob(losses.masked(logits, allowed), jnp.asarray([1, 3]))
    np.testing.assert_allclose(chosen, [-log(2), -log(4)], rtol=1e-6)
    pull = jax.grad(lambda x: losses.log_prob(losses.masked(x, allowed), jnp.asarray([1, 3])).sum())(logits)
    np.testing.assert_allclose(pull, [[0, 0.5, -0.5, 0], [-0.25, -0.25, -0.25, 0.75]], atol=1e-6)


def test_a_single_allowed_action_is_certain():
    only = losses.masked(jnp.zeros((1, 4)), jnp.asarray([[False, False, True, False]]))
    assert float(losses.entropy(only)) == 0.0
    assert float(losses.log_prob(only, jnp.asarray([2]))[0]) == 0.0


def test_approx_kl_is_the_divergence_when_actions_come_as_often_as_the_old_policy_says():
    """Old ¼, ¾ and new ½, ½: one action of the first kind and three of the second."""
    old = jnp.log(jnp.asarray([0.25, 0.75, 0.75, 0.75]))
    new = jnp.full(4, log(0.5))
    expected = 0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5)
    assert float(losses.approx_kl(new, old)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.approx_kl(old, old)) == 0.0


def test_clipfrac_counts_both_directions():
    assert float(losses.clipfrac(jnp.asarray([0.5, 0.9, 1.0, 1.1, 1.3]), 0.2)) == pytest.approx(0.4)


def test_explained_variance_of_perfect_useless_harmful_and_constant():
    target = jnp.asarray([1.0, 2.0, 3.0])
    assert float(losses.explained_variance(target + 5, target)) == 1.0
    assert float(losses.explained_variance(jnp.zeros(3), target)) == 0.0
    assert float(losses.explained_variance(-target, target)) == pytest.approx(-3.0)
    assert float(losses.explained_variance(target, jnp.ones(3))) == 0.0


def test_the_combined_advantage_keeps_its_scale_whatever_lambda():
    gain, cost = jnp.asarray([2.0, -1.0]), jnp.asarray([1.0, 1.0])
    np.testing.assert_array_equal(losses.combined_advantage(gain, cost, jnp.asarray(0.0)), gain)
    np.testing.assert_allclose(losses.combined_advantage(gain, cost, jnp.asarray(3.0)), [-0.25, -1.0])
    np.testing.assert_allclose(losses.combined_advantage(gain, cost, jnp.asarray(1e6)), -cost, atol=1e-5)
