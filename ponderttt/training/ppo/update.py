"""One PPO update: epochs of shuffled minibatches over a rollout, in one compiled function.

The function is pure, so policies of several seeds can be trained in any order, or interleaved, with the same result.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from ponderttt.errors import PonderTTTError
from ponderttt.settings.ppo import PPOConfig
from ponderttt.training.ppo import losses

#: ε of Adam: larger than the usual 1e-8, so that rarely used weights take no large steps.
ADAM_EPSILON = 1e-5


class Batch(NamedTuple):
    """A rollout of N chunks in E environments."""

    #: Normalised features.
    features: Float[Array, "N E n"]
    actions: Int[Array, "N E"]
    #: Actions that were allowed; at least one.
    allowed: Bool[Array, "N E A"]
    #: Log-probability of the action among the allowed ones, under the policy that took it.
    log_prob: Float[Array, "N E"]
    #: Combined, normalised advantage of reward and cost.
    advantage: Float[Array, "N E"]
    value: Float[Array, "N E"]
    value_target: Float[Array, "N E"]
    cost_value: Float[Array, "N E"]
    cost_value_target: Float[Array, "N E"]


class Stats(NamedTuple):
    """Statistics of an update; losses, entropy and clipfrac are means over the steps taken."""

    policy_loss: Float[Array, ""]
    value_loss: Float[Array, ""]
    cost_value_loss: Float[Array, ""]
    entropy: Float[Array, ""]
    #: Mean over the last epoch taken.
    approx_kl: Float[Array, ""]
    clipfrac: Float[Array, ""]
    #: Explained variance of each critic before the update.
    explained_variance: Float[Array, ""]
    cost_explained_variance: Float[Array, ""]
    #: True if an epoch was left out because the previous one exceeded the KL limit.
    stopped: Bool[Array, ""]
    #: Largest |ratio − 1| before the first step, on its minibatch; 0 if log-probabilities are computed as in the rollout.
    first_ratio_error: Float[Array, ""]


def optimiser(config: PPOConfig, learning_rate: float | Float[Array, ""]) -> optax.GradientTransformation:
    """Return Adam with clipping of the gradient norm; ``learning_rate`` is not part of its state and may be traced.

    Actor and critics are clipped separately: they share no weights, and large errors of the critics would otherwise scale
    the actor's gradient to almost nothing.
    """
    clip = optax.clip_by_global_norm(config.grad_clip)
    return optax.chain(
        optax.partition({"actor": clip, "critics": clip}, _parts),
        optax.scale_by_adam(eps=ADAM_EPSILON),
        optax.scale(-learning_rate),
    )


def _parts(params: Any) -> Any:
    """Return ``actor`` or ``critics`` for each parameter of an :class:`ponderttt.policies.networks.ActorCritic`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "actor" if path[0].key in ("actor", "policy") else "critics", params
    )


def log_probs(
    graph: Any,
    params: Any,
    features: Float[Array, "*B n"],
    allowed: Bool[Array, "*B A"],
    actions: Int[Array, "*B"],
) -> Float[Array, "*B"]:
    """Return the log-probability of each action among the allowed ones, as :func:`update` computes it up to rounding."""
    return losses.log_prob(losses.masked(nnx.merge(graph, params)(features).logits, allowed), actions)


def _loss(
    params: Any, graph: Any, batch: Batch, config: PPOConfig, entropy_weight: Float[Array, ""]
) -> tuple[Float[Array, ""], tuple[dict[str, Float[Array, ""]], Float[Array, ""]]]:
    heads = nnx.merge(graph, params)(batch.features)
    logits = losses.masked(heads.logits, batch.allowed)
    log_prob = losses.log_prob(logits, batch.actions)
    ratio = losses.ratio(log_prob, batch.log_prob)
    numbers = {
        "policy_loss": losses.clipped_policy_loss(log_prob, batch.log_prob, batch.advantage, config.clip),
        "value_loss": losses.value_loss(heads.value, batch.value, batch.value_target, config.value_clip),
        "cost_value_loss": losses.value_loss(
            heads.cost_value, batch.cost_value, batch.cost_value_target, config.value_clip
        ),
        "entropy": losses.entropy(logits),
        "approx_kl": losses.approx_kl(log_prob, batch.log_prob),
        "clipfrac": losses.clipfrac(ratio, config.clip),
    }
    critics = numbers["value_loss"] + numbers["cost_value_loss"]
    loss = numbers["policy_loss"] + config.value_weight * critics - entropy_weight * numbers["entropy"]
    return loss, (numbers, jnp.max(jnp.abs(ratio - 1)))


@partial(jax.jit, static_argnames=("graph", "config"))
def _update(
    graph: Any,
    params: Any,
    opt_state: optax.OptState,
    batch: Batch,
    key: Key[Array, ""],
    config: PPOConfig,
    entropy_weight: Float[Array, ""],
    learning_rate: Float[Array, ""],
) -> tuple[Any, optax.OptState, Stats]:
    adam = optimiser(config, learning_rate)
    chunks = batch.actions.size
    flat = jax.tree.map(lambda leaf: leaf.reshape(chunks, *leaf.shape[2:]), batch)
    gradient_of = jax.value_and_grad(_loss, has_aux=True)

    def minibatch(carry: Any, rows: Int[Array, " B"]) -> tuple[Any, Any]:
        params, opt_state, stopped = carry
        part = jax.tree.map(lambda leaf: leaf[rows], flat)
        (_, seen), gradients = gradient_of(params, graph, part, config, entropy_weight)
        steps, new_state = adam.update(gradients, opt_state, params)
        new = optax.apply_updates(params, steps), new_state
        params, opt_state = jax.tree.map(lambda a, b: jnp.where(stopped, b, a), new, (params, opt_state))
        return (params, opt_state, stopped), seen

    def epoch(carry: Any, number: Int[Array, ""]) -> tuple[Any, Any]:
        *_, stopped = carry
        rows = jax.random.permutation(jax.random.fold_in(key, number), chunks).reshape(config.minibatches, -1)
        (params, opt_state, _), (numbers, ratio_errors) = jax.lax.scan(minibatch, carry, rows)
        means = jax.tree.map(jnp.mean, numbers)
        beyond = stopped | (means["approx_kl"] > config.kl_limit)
        return (params, opt_state, beyond), (means, ratio_errors, ~stopped)

    carry = (params, opt_state, jnp.asarray(False))
    (params, opt_state, _), (means, ratio_errors, taken) = jax.lax.scan(
        epoch, carry, jnp.arange(config.epochs)
    )
    share = taken / jnp.sum(taken)
    averages = {name: jnp.sum(jnp.where(taken, per_epoch, 0) * share) for name, per_epoch in means.items()}
    averages["approx_kl"] = means["approx_kl"][jnp.sum(taken) - 1]
    stats = Stats(
        **averages,
        explained_variance=losses.explained_variance(batch.value, batch.value_target),
        cost_explained_variance=losses.explained_variance(batch.cost_value, batch.cost_value_target),
        stopped=~taken[-1],
        first_ratio_error=ratio_errors[0, 0],
    )
    return params, opt_state, stats


def update(
    graph: Any,
    params: Any,
    opt_state: optax.OptState,
    batch: Batch,
    key: Key[Array, ""],
    config: PPOConfig,
    entropy_weight: float | Float[Array, ""],
    learning_rate: float | Float[Array, ""] | None = None,
) -> tuple[Any, optax.OptState, Stats]:
    """Improve a policy and its critics on one rollout; compiled once per network, configuration and shape.

    Args:
        graph: graph definition of an :class:`ponderttt.policies.networks.ActorCritic`.
        params: parameters of the policy that made the rollout.
        opt_state: state of :func:`optimiser`, initialised with the first parameters.
        batch: the rollout.
        key: shuffles the chunks of each epoch.
        config: see :class:`PPOConfig`.
        entropy_weight: weight of the entropy bonus in this iteration.
        learning_rate: learning rate in this iteration; None for that of ``config``.

    Returns:
        The new parameters, the new state of the optimiser, and statistics.

    Raises:
        PonderTTTError: the minibatches do not divide the rollout.
    """
    if batch.actions.size % config.minibatches:
        raise PonderTTTError(
            f"learned.ppo.minibatches must divide the {batch.actions.size} chunks of a rollout, got {config.minibatches}"
        )
    rate = config.learning_rate if learning_rate is None else learning_rate
    numbers = (jnp.asarray(value, jnp.float32) for value in (entropy_weight, rate))
    return _update(graph, params, opt_state, batch, key, config, *numbers)
