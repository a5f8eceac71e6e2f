"""How a chunk's hidden states relate to those of the chunk before: how near they are, and how well they follow from them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

#: Of the softmax over cosine similarities that reconstructs a state from the chunk before: of 5, 10, 15, 20, 40 and 80 the
#: one with the smallest error on training streams.
INVERSE_TEMPERATURE = 20.0
_MASKED = -1e30


@jax.jit
def nearest_and_error(
    hidden: Float[Array, "T D"],
    mask: Bool[Array, " T"],
    previous_hidden: Float[Array, "T D"],
    previous_mask: Bool[Array, " T"],
) -> tuple[Float[Array, " T"], Float[Array, " T"]]:
    """Of each token: the largest cosine similarity to a state of the chunk before, and the error of reconstructing it.

    States are centred on the mean of the chunk before and scaled to length 1.  The reconstruction is the softmax
    regression of Nadaraya and Watson, which is attention to the chunk before; its squared error is at most 1, the
    error of predicting nothing.

    Args:
        hidden: states of the chunk.
        mask: True at its real tokens; values at others mean nothing.
        previous_hidden: states of the chunk before.
        previous_mask: True at its real tokens, of which there is at least one.
    """
    # Padding may hold anything, NaN included, which a product with zero would keep.
    stored = jnp.where(previous_mask[:, None], previous_hidden, 0.0)
    centre = jnp.sum(stored, axis=0) / jnp.sum(previous_mask)
    keys = _unit(jnp.where(previous_mask[:, None], stored - centre, 0.0))
    queries = _unit(jnp.where(mask[:, None], hidden - centre, 0.0))
    similarity = jnp.einsum("TD,SD->TS", queries, keys) + jnp.where(previous_mask, 0.0, _MASKED)
    nearest = similarity.max(axis=1)
    weight = jnp.exp(INVERSE_TEMPERATURE * (similarity - nearest[:, None]))
    guess = jnp.einsum("TS,SD->TD", weight, keys) / weight.sum(axis=1)[:, None]
    error = jnp.sum(jnp.square(queries - guess), axis=1)
    return jnp.clip(nearest, -1.0, 1.0), jnp.minimum(error, 1.0)


def _unit(rows: Float[Array, "T D"]) -> Float[Array, "T D"]:
    """Rows of length 1; a row of zeros stays."""
    length = jnp.sqrt(jnp.sum(jnp.square(rows), axis=1))
    return rows / jnp.maximum(length, 1e-6)[:, None]
