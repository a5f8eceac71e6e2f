"""Networks of learned policies: their sizes, how they start, and that they are pure once split."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ponderttt.policies.networks import ActorCritic, Gate


def parameters(network: nnx.Module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network)))


@pytest.fixture(scope="module")
def actor_critic() -> ActorCritic:
    return ActorCritic(32, rngs=nnx.Rngs(0))


def test_the_gate_has_6466_parameters_with_32_features_and_more_only_for_more_inputs():
    assert parameters(Gate(32, rngs=nnx.Rngs(0))) == 6_466
    # 32 more inputs: as many scales, biases, and rows of 64 weights.
    assert parameters(Gate(64, rngs=nnx.Rngs(0))) == 6_466 + 32 * (1 + 1 + 64)


def test_the_gate_is_blind_to_the_level_and_the_scale_of_its_inputs():
    """By its layer norm; and not blind to anything else."""
    gate = Gate(32, rngs=nnx.Rngs(1))
    features = jax.random.normal(jax.random.key(2), (5, 32))
    logits = gate(features)
    assert logits.shape == (5, 2)
    np.testing.assert_allclose(gate(3 * features + 7), logits, atol=1e-4)
    assert np.abs(gate(features[::-1]) - logits).max() > 0.01


def test_weights_start_orthogonal_with_the_gain_of_their_layer(actor_critic):
    gains = [
        (actor_critic.actor.first, 2.0),
        (actor_critic.actor.second, 2.0),
        (actor_critic.critic.first, 2.0),
        (actor_critic.critic.second, 2.0),
        (actor_critic.policy, 1e-4),
        (actor_critic.value, 1.0),
        (actor_critic.cost_value, 1.0),
    ]
    for layer, squared_gain in gains:
        kernel = np.asarray(layer.kernel[...])
        narrow = kernel if kernel.shape[0] <= kernel.shape[1] else kernel.T
        np.testing.assert_allclose(narrow @ narrow.T, squared_gain * np.eye(len(narrow)), atol=1e-5)
        assert not np.any(layer.bias[...])


def test_all_actions_start_about_equally_likely(actor_critic):
    heads = actor_critic(jax.random.normal(jax.random.key(0), (3, 7, 32)))
    assert heads.logits.shape == (3, 7, 4)
    assert heads.value.shape == heads.cost_value.shape == (3, 7)
    np.testing.assert_allclose(jax.nn.softmax(heads.logits), 0.25, atol=0.01)


@pytest.mark.parametrize("head", ["value", "cost_value"])
def test_critics_do_not_move_the_policy(actor_critic, head):
    graph, params = nnx.split(actor_critic)
    features = jnp.ones((2, 32))
    gradient = jax.grad(lambda p: getattr(nnx.merge(graph, p)(features), head).sum())(params)
    moved = {str(path[0].key) for path, leaf in jax.tree.leaves_with_path(gradient) if np.any(leaf)}
    assert moved == {"critic", head}


@pytest.mark.parametrize("network", [Gate, ActorCritic])
def test_networks_of_two_seeds_share_one_compiled_function_and_differ_in_weights(network):
    (graph, params), (other_graph, other) = (nnx.split(network(32, rngs=nnx.Rngs(s))) for s in (0, 1))
    assert graph == other_graph
    assert hash(graph) == hash(other_graph)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (params, other)), strict=True))
