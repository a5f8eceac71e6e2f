"""Behaviour cloning: the policy decides as the rule did, and only the actor has moved."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ponderttt.policies.networks import ActorCritic
from ponderttt.training.ppo import losses
from ponderttt.training.ppo.clone import clone


def test_a_clone_decides_like_the_rule_and_its_critics_are_untouched():
    features = jax.random.normal(jax.random.key(0), (1024, 4))
    allowed = jnp.ones((1024, 4), bool).at[:, 2].set(features[:, 1] >= 0)
    rule = jnp.where(features[:, 0] > 0.5, jnp.where(allowed[:, 2], 2, 3), 0)
    graph, params = nnx.split(ActorCritic(4, rngs=nnx.Rngs(1)))
    cloned = clone(graph, params, features[:768], allowed[:768], rule[:768], jax.random.key(2), 300, 3e-3)
    heads = nnx.merge(graph, cloned)(features)
    logits = losses.masked(heads.logits, allowed)
    assert float(jnp.mean(jnp.argmax(logits, axis=-1)[768:] == rule[768:])) > 0.95
    before = nnx.merge(graph, params)(features)
    np.testing.assert_array_equal(heads.value, before.value)
    np.testing.assert_array_equal(heads.cost_value, before.cost_value)
    again = clone(graph, params, features[:768], allowed[:768], rule[:768], jax.random.key(2), 300, 3e-3)
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (cloned, again)), strict=True))
