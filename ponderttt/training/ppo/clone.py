"""Behaviour cloning: train a policy to copy a rule, as a start for PPO."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from ponderttt.training.ppo import losses

#: Chunks per step, drawn with replacement.
MINIBATCH = 256


@partial(jax.jit, static_argnames=("graph", "steps"))
def clone(
    graph: Any,
    params: Any,
    features: Float[Array, "M n"],
    allowed: Bool[Array, "M A"],
    actions: Int[Array, " M"],
    key: Key[Array, ""],
    steps: int,
    learning_rate: float | Float[Array, ""],
) -> Any:
    """Return the parameters after Adam steps on the mean −log π(a | features) of the rule's actions, in nats.

    Args:
        graph: graph definition of an :class:`ponderttt.policies.networks.ActorCritic`.
        params: initial parameters; those of the critics do not change.
        features: normalised features of M chunks.
        allowed: actions that the policy could take at each chunk, including the rule's.
        actions: actions of the rule.
        key: draws the minibatches.
        steps: number of Adam steps.
        learning_rate: learning rate of Adam.
    """
    adam = optax.adam(learning_rate)

    def loss(params: Any, rows: Int[Array, " B"]) -> Float[Array, ""]:
        logits = nnx.merge(graph, params)(features[rows]).logits
        return -jnp.mean(losses.log_prob(losses.masked(logits, allowed[rows]), actions[rows]))

    def step(carry: Any, key: Key[Array, ""]) -> tuple[Any, None]:
        params, opt_state = carry
        rows = jax.random.randint(key, (MINIBATCH,), 0, features.shape[0])
        moves, opt_state = adam.update(jax.grad(loss)(params, rows), opt_state)
        return (optax.apply_updates(params, moves), opt_state), None

    return jax.lax.scan(step, (params, adam.init(params)), jax.random.split(key, steps))[0][0]
