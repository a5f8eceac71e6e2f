"""What PPO minimises, and what it is watched by (Schulman et al. 2017, arXiv:1707.06347).

Everything is a mean over the chunks that are given.  Logits of forbidden actions are −∞.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def masked(logits: Float[Array, "*B A"], allowed: Bool[Array, "*B A"]) -> Float[Array, "*B A"]:
    """Logits with −∞ where an action is forbidden; each row has to allow one."""
    return jnp.where(allowed, logits, -jnp.inf)


def log_prob(logits: Float[Array, "*B A"], actions: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Log-probability of each action; logits may be −∞."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), actions[..., None], axis=-1)[..., 0]


def ratio(log_prob_new: Float[Array, "*B"], log_prob_old: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """How much likelier an action is than when it was taken."""
    return jnp.exp(log_prob_new - log_prob_old)


def clipped_policy_loss(
    log_prob_new: Float[Array, "*B"],
    log_prob_old: Float[Array, "*B"],
    advantage: Float[Array, "*B"],
    clip: float,
) -> Float[Array, ""]:
    """−mean of min(r·A, clip(r, 1−c, 1+c)·A): no credit for moving further than c the way the advantage points."""
    r = ratio(log_prob_new, log_prob_old)
    return -jnp.mean(jnp.minimum(r * advantage, jnp.clip(r, 1 - clip, 1 + clip) * advantage))


def value_loss(
    value: Float[Array, "*B"],
    old_value: Float[Array, "*B"],
    target: Float[Array, "*B"],
    clip: float | None,
) -> Float[Array, ""]:
    """Half the mean squared error.

    With ``clip``, the error of a chunk is the *larger* of that of the value and that of the value kept within ±clip
    of the old one: a value that went further earns nothing by it, and one that is further from its target is still
    drawn back.
    """
    square = jnp.square(value - target)
    if clip is not None:
        kept = old_value + jnp.clip(value - old_value, -clip, clip)
        square = jnp.maximum(square, jnp.square(kept - target))
    return 0.5 * jnp.mean(square)


def entropy(logits: Float[Array, "*B A"]) -> Float[Array, ""]:
    """Mean entropy in nats; a forbidden action adds nothing, and no gradient."""
    log_probs = jax.nn.log_softmax(logits)
    finite = jnp.where(jnp.isfinite(logits), log_probs, 0.0)
    return -jnp.mean(jnp.sum(jnp.exp(log_probs) * finite, axis=-1))


def approx_kl(log_prob_new: Float[Array, "*B"], log_prob_old: Float[Array, "*B"]) -> Float[Array, ""]:
    """Estimate of KL(old ‖ new) from old actions: mean of (r − 1) − log r, unbiased and never negative."""
    difference = log_prob_new - log_prob_old
    return jnp.mean(jnp.expm1(difference) - difference)


def clipfrac(ratio: Float[Array, "*B"], clip: float) -> Float[Array, ""]:
    """Share of actions whose ratio is further than ``clip`` from 1."""
    return jnp.mean((jnp.abs(ratio - 1) > clip).astype(ratio.dtype))


def explained_variance(value: Float[Array, "*B"], target: Float[Array, "*B"]) -> Float[Array, ""]:
    """1 − Var(target − value) / Var(target): 1 is perfect, 0 no better than a constant; 0 where targets are all equal."""
    spread = jnp.var(target)
    return jnp.where(spread > 0, 1 - jnp.var(target - value) / jnp.where(spread > 0, spread, 1.0), 0.0)


def combined_advantage(
    reward_advantage: Float[Array, "*B"], cost_advantage: Float[Array, "*B"], lam: Float[Array, ""]
) -> Float[Array, "*B"]:
    """(A_r − λ·A_c) / (1 + λ): the scale stays, whatever the price λ of the cost (Stooke et al. 2020)."""
    return (reward_advantage - lam * cost_advantage) / (1 + lam)
