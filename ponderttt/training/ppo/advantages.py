"""Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438), one trajectory per environment.

    δ_t = r_t + γ·(1 − end_t)·V_{t+1} − V_t,      A_t = δ_t + γ·λ·(1 − end_t)·A_{t+1}

Rewards after the end of a stream do not count.  Where only the rollout ends, the value of the next chunk replaces them.
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
    gamma: float | Float[Array, ""],
    lam: float | Float[Array, ""],
) -> Float[Array, "N E"]:
    """Return the advantage of each action; ``gae(…) + values`` are the λ-returns that values are fitted to.

    Args:
        rewards: reward after each chunk.
        values: expected return from each chunk on, before its action is known.
        last_value: expected return from the chunk after the rollout on; ignored where a stream ends with the rollout.
        ends: whether the stream ends with this chunk.
        gamma: discount per chunk.
        lam: λ; 0 uses one reward and the values after it, 1 uses rewards alone.
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
    """Shift and scale to mean 0 and standard deviation 1 over the whole rollout; equal advantages become 0."""
    centred = advantage - jnp.mean(advantage)
    return centred / (jnp.std(advantage) + eps)
