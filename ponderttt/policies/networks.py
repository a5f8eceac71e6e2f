"""Networks of learned policies: small, and pure once split.

``graph, params = nnx.split(network)`` gives a static description and a pytree of arrays; ``nnx.merge(graph,
params)(features)`` is then a pure function.  Networks of one shape have equal graphs, whatever their seed, so what is
compiled for one serves all.

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

# Made once: graphs are equal only where their initialisers are the same objects.
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
        """Logits of SKIP and UPDATE."""
        hidden = nnx.relu(self.first(self.norm(features)))
        return self.head(nnx.relu(self.second(hidden)))


class Heads(NamedTuple):
    """What :class:`ActorCritic` says of a chunk."""

    #: Of the four actions, before any is masked.
    logits: Float[Array, "*B A"]
    #: Expected return of the reward.
    value: Float[Array, "*B"]
    #: Expected return of the cost.
    cost_value: Float[Array, "*B"]


class Torso(nnx.Module):
    """Two tanh layers n → 64 → 64, orthogonal with gain √2, zero biases."""

    def __init__(self, inputs: int, *, rngs: nnx.Rngs) -> None:
        """``inputs`` is the number n of features; ``rngs`` draws the weights."""
        self.first = nnx.Linear(inputs, HIDDEN, kernel_init=_TORSO_INIT, rngs=rngs)
        self.second = nnx.Linear(HIDDEN, HIDDEN, kernel_init=_TORSO_INIT, rngs=rngs)

    def __call__(self, features: Float[Array, "*B n"]) -> Float[Array, "*B H"]:
        """Hidden features."""
        return jnp.tanh(self.second(jnp.tanh(self.first(features))))


class ActorCritic(nnx.Module):
    """A policy over the four actions and the critics of reward and cost.

    Actor and critics have a torso each, so that the scale of the returns cannot move the policy; the two critics
    share theirs.  The policy head starts near 0 (gain 0.01): all actions are about equally likely at first.
    """

    def __init__(self, inputs: int, *, rngs: nnx.Rngs) -> None:
        """``inputs`` is the number n of features; ``rngs`` draws the weights."""
        self.actor = Torso(inputs, rngs=rngs)
        self.critic = Torso(inputs, rngs=rngs)
        self.policy = nnx.Linear(HIDDEN, len(Action), kernel_init=_POLICY_INIT, rngs=rngs)
        self.value = nnx.Linear(HIDDEN, 1, kernel_init=_VALUE_INIT, rngs=rngs)
        self.cost_value = nnx.Linear(HIDDEN, 1, kernel_init=_VALUE_INIT, rngs=rngs)

    def __call__(self, features: Float[Array, "*B n"]) -> Heads:
        """Logits and values of each row of features."""
        judged = self.critic(features)
        return Heads(
            self.policy(self.actor(features)), self.value(judged)[..., 0], self.cost_value(judged)[..., 0]
        )
