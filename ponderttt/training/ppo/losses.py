"""Losses and diagnostics of PPO (Schulman et al. 2017, arXiv:1707.06347).

All are means over the given chunks.  Logits of forbidden actions are −∞.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def masked(logits: Float[Array, "*B A"], allowed: Bool[Array, "*B A"]) -> Float[Array, "*B A"]:
    """Set the logits of forbidden actions to −∞; each row must allow at least one action."""
    return jnp.where(allowed, logits, -jnp.inf)


def log_prob(logits: Float[Array, "*B A"], actions: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Return the log-probability of each action; logits may be −∞."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), actions[..., None], axis=-1)[..., 0]


def ratio(log_prob_new: Float[Array, "*B"], log_prob_old: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Return the probability of each action divided by its probability when it was taken."""
    return jnp.exp(log_prob_new - log_prob_old)


def clipped_policy_loss(
    log_prob_new: Float[Array, "*B"],
    log_prob_old: Float[Array, "*B"],
    advantage: Float[Array, "*B"],
    clip: float,
) -> Float[Array, ""]:
    """Return −mean of min(r·A, clip(r, 1−c, 1+c)·A): moving r further than c in the direction of A gains nothing."""
    r = ratio(log_prob_new, log_prob_old)
    return -jnp.mean(jnp.minimum(r * advantage, jnp.clip(r, 1 - clip, 1 + clip) * advantage))


def value_loss(
    value: Float[Array, "*B"],
    old_value: Float[Array, "*B"],
    target: Float[Array, "*B"],
    clip: float | None,
) -> Float[Array, ""]:
    """Return half the mean squared error.

    With ``clip``, the error of a chunk is the *larger* of the error of the value and the error of the value clipped to
    ±clip around the old one.  A value that moved further gains nothing, and a value far from its target still gets a
    gradient.
    """
    square = jnp.square(value - target)
    if clip is not None:
        kept = old_value + jnp.clip(value - old_value, -clip, clip)
        square = jnp.maximum(square, jnp.square(kept - target))
    return 0.5 * jnp.mean(square)


def entropy(logits: Float[Array, "*B A"]) -> Float[Array, ""]:
    """Return the mean entropy in nats; a forbidden action adds neither value nor gradient."""
    log_probs = jax.nn.log_softmax(logits)
    finite = jnp.where(jnp.isfinite(logits), log_probs, 0.0)
    return -jnp.mean(jnp.sum(jnp.exp(log_probs) * finite, axis=-1))


def approx_kl(log_prob_new: Float[Array, "*B"], log_prob_old: Float[Array, "*B"]) -> Float[Array, ""]:
    """Estimate KL(old ‖ new) from old actions: the mean of (r − 1) − log r, unbiased and never negative."""
    difference = log_prob_new - log_prob_old
    return jnp.mean(jnp.expm1(difference) - difference)


def clipfrac(ratio: Float[Array, "*B"], clip: float) -> Float[Array, ""]:
    """Return the fraction of actions whose ratio differs from 1 by more than ``clip``."""
    return jnp.mean((jnp.abs(ratio - 1) > clip).astype(ratio.dtype))


def explained_variance(value: Float[Array, "*B"], target: Float[Array, "*B"]) -> Float[Array, ""]:
    """Return 1 − Var(target − value) / Var(target): 1 is perfect, 0 is a constant; 0 if all targets are equal."""
    spread = jnp.var(target)
    return jnp.where(spread > 0, 1 - jnp.var(target - value) / jnp.where(spread > 0, spread, 1.0), 0.0)


def combined_advantage(
    reward_advantage: Float[Array, "*B"], cost_advantage: Float[Array, "*B"], lam: Float[Array, ""]
) -> Float[Array, "*B"]:
    """Return (A_r − λ·A_c) / (1 + λ), whose scale does not depend on λ (Stooke et al. 2020)."""
    return (reward_advantage - lam * cost_advantage) / (1 + lam)
