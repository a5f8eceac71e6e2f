"""The networks of learned policies.

``graph, params = nnx.split(network)`` gives a static description and a pytree of arrays; ``nnx.merge(graph,
params)(features)`` is then a pure function.  Networks of one shape have equal graphs, whatever their seed, so they share
compiled programs.

Inputs are normalised features (:mod:`ponderttt.features.normalise`): the first 32, or all 64.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ponderttt.actions import Action

#: Width of both hidden layers of every network.
HIDDEN = 64

# Created once: graphs are equal only if their initialisers are the same objects.
_TORSO_INIT = nnx.initializers.orthogonal(2**0.5)
_POLICY_INIT = nnx.initializers.orthogonal(0.01)
_VALUE_INIT = nnx.initializers.orthogonal(1.0)


class Gate(nnx.Module):
    """SKIP or UPDATE: layer norm and an MLP n → 64 → 64 → 2; 6,466 parameters with 32 inputs."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs) -> None:
        """``inputs`` is the number n of features; ``rngs`` draws the weights."""
        self.norm = nnx.LayerNorm(inputs, rngs=rngs)
        self.first = nnx.Linear(inputs, HIDDEN, rngs=rngs)
        self.second = nnx.Linear(HIDDEN, HIDDEN, rngs=rngs)
        self.head = nnx.Linear(HIDDEN, 2, rngs=rngs)

    def __call__(self, features: Float[Array, "*B n"]) -> Float[Array, "*B 2"]:
        """Return the logits of SKIP and UPDATE."""
        hidden = nnx.relu(self.first(self.norm(features)))
        return self.head(nnx.relu(self.second(hidden)))


class Heads(NamedTuple):
    """Outputs of :class:`ActorCritic`.

    Attributes:
        logits: logits of the four actions, before any is masked.
        value: expected return of the reward.
        cost_value: expected return of the cost.
    """

    logits: Float[Array, "*B A"]
    value: Float[Array, "*B"]
    cost_value: Float[Array, "*B"]


class Torso(nnx.Module):
    """Two tanh layers n → 64 → 64, orthogonal with gain √2, zero biases."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs) -> None:
        """``inputs`` is the number n of features; ``rngs`` draws the weights."""
        self.first = nnx.Linear(inputs, HIDDEN, kernel_init=_TORSO_INIT, rngs=rngs)
        self.second = nnx.Linear(HIDDEN, HIDDEN, kernel_init=_TORSO_INIT, rngs=rngs)

    def __call__(self, features: Float[Array, "*B n"]) -> Float[Array, "*B H"]:
        """Return the hidden features."""
        return jnp.tanh(self.second(jnp.tanh(self.first(features))))


class ActorCritic(nnx.Module):
    """A policy over the four actions, with critics of reward and cost.

    The actor has a torso of its own, so the scale of the returns cannot change the policy; the two critics share one.
    The policy head starts near 0 (gain 0.01): at first all actions are about equally likely.
    """

    def __init__(self, inputs: int, *, rngs: nnx.Rngs) -> None:
        """``inputs`` is the number n of features; ``rngs`` draws the weights."""
        self.actor = Torso(inputs, rngs=rngs)
        self.critic = Torso(inputs, rngs=rngs)
        self.policy = nnx.Linear(HIDDEN, len(Action), kernel_init=_POLICY_INIT, rngs=rngs)
        self.value = nnx.Linear(HIDDEN, 1, kernel_init=_VALUE_INIT, rngs=rngs)
        self.cost_value = nnx.Linear(HIDDEN, 1, kernel_init=_VALUE_INIT, rngs=rngs)

    def __call__(self, features: Float[Array, "*B n"]) -> Heads:
        """Return logits and values of each row of features."""
        judged = self.critic(features)
        return Heads(
            self.policy(self.actor(features)), self.value(judged)[..., 0], self.cost_value(judged)[..., 0]
        )
