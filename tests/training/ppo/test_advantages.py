"""Advantages: hand-worked trajectories, and what an end and a truncation mean."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.training.ppo.advantages import gae, normalise

GAE = jax.jit(gae)


def test_hand_worked_trajectories_with_truncation_an_end_in_the_middle_and_an_end_at_the_last_chunk():
    """All with rewards 1, 2, 3, values 1, last value 2, γ = λ = ½; an error counts a quarter one chunk earlier."""
    rewards = jnp.asarray([[1.0] * 3, [2.0] * 3, [3.0] * 3])
    ends = jnp.asarray([[False, False, False], [False, True, False], [False, False, True]])
    found = GAE(rewards, jnp.ones((3, 3)), jnp.full(3, 2.0), ends, 0.5, 0.5)
    # Truncated: errors ½, 1½, 3.  Middle end: ½, 1, 3, and what follows the end stays there.  Last end: ½, 1½, 2.
    expected = [[1.0625, 0.75, 1.0], [2.25, 1.0, 2.0], [3.0, 3.0, 2.0]]
    np.testing.assert_array_equal(found, expected)


def test_nothing_after_the_end_of_a_stream_counts_before_it():
    key = jax.random.key(0)
    rewards, values = jax.random.normal(key, (2, 6, 1))
    ends = jnp.zeros((6, 1), bool).at[2].set(True)
    found = GAE(rewards, values, jnp.ones(1), ends, 0.9, 0.8)
    changed = GAE(rewards.at[3:].add(5.0), values.at[3:].add(7.0), jnp.full(1, 9.0), ends, 0.9, 0.8)
    np.testing.assert_array_equal(found[:3], changed[:3])
    assert np.all(found[3:] != changed[3:])


def test_environments_do_not_mix():
    rewards, values = jax.random.normal(jax.random.key(1), (2, 7, 3))
    last, ends = jnp.asarray([1.0, -2.0, 3.0]), jax.random.bernoulli(jax.random.key(2), 0.2, (7, 3))
    together = GAE(rewards, values, last, ends, 0.99, 0.95)
    for e in range(3):
        alone = GAE(
            rewards[:, e : e + 1], values[:, e : e + 1], last[e : e + 1], ends[:, e : e + 1], 0.99, 0.95
        )
        np.testing.assert_allclose(alone[:, 0], together[:, e], rtol=1e-6)


def test_with_lambda_1_advantage_and_value_are_the_discounted_return():
    rewards, values = jax.random.normal(jax.random.key(3), (2, 4, 1))
    targets = GAE(rewards, values, jnp.full(1, 10.0), jnp.zeros((4, 1), bool), 0.5, 1.0) + values
    r = rewards[:, 0]
    np.testing.assert_allclose(targets[0, 0], r[0] + r[1] / 2 + r[2] / 4 + r[3] / 8 + 10 / 16, rtol=1e-6)


def test_normalised_advantages_have_mean_0_and_deviation_1_and_equal_ones_are_0():
    scaled = normalise(jnp.asarray([[1.0, 2.0], [3.0, 6.0]]))
    assert float(scaled.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(scaled.std()) == pytest.approx(1.0, abs=1e-5)
    assert not np.any(normalise(jnp.full((3, 2), 4.0)))
