"""Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438), one trajectory for each environment.

    δ_t = r_t + γ·(1 − end_t)·V_{t+1} − V_t,      A_t = δ_t + γ·λ·(1 − end_t)·A_{t+1}

Where a stream ends, nothing after it counts.  Where only the rollout ends, the value of what would have come next
stands for it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def gae(
    rewards: Float[Array, "N E"],
    values: Float[Array, "N E"],
    last_value: Float[Array, " E"],
    ends: Bool[Array, "N E"],
    gamma: float,
    lam: float,
) -> Float[Array, "N E"]:
    """Advantage of each action; ``gae(…) + values`` are the λ-returns that values are fitted to.

    Args:
        rewards: that followed each chunk.
        values: expected return from each chunk on, before its action.
        last_value: the same of the chunk after the rollout; it counts for nothing where a stream ended with the rollout.
        ends: whether the stream ends with this chunk.
        gamma: discount per chunk.
        lam: λ; 0 looks one reward ahead and trusts the values for the rest, 1 trusts rewards alone.
    """
    goes_on = 1.0 - ends.astype(values.dtype)
    following = jnp.concatenate([values[1:], last_value[None]])
    errors = rewards + gamma * goes_on * following - values

    def earlier(
        later: Float[Array, " E"], step: tuple[Float[Array, " E"], Float[Array, " E"]]
    ) -> tuple[Float[Array, " E"], Float[Array, " E"]]:
        error, goes_on = step
        advantage = error + gamma * lam * goes_on * later
        return advantage, advantage

    return jax.lax.scan(earlier, jnp.zeros_like(last_value), (errors, goes_on), reverse=True)[1]


def normalise(advantage: Float[Array, "N E"], eps: float = 1e-6) -> Float[Array, "N E"]:
    """Zero mean and unit standard deviation over the whole rollout; equal advantages become 0."""
    centred = advantage - jnp.mean(advantage)
    return centred / (jnp.std(advantage) + eps)
