"""Similarity of a chunk's hidden states to those of the previous chunk, and the error of reconstructing them from these."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ponderttt.costs import count_flops

#: Inverse temperature of the softmax over cosine similarities that reconstructs a state: of 5, 10, 15, 20, 40 and 80 the one
#: with the smallest error on training streams.
INVERSE_TEMPERATURE = 20.0
_MASKED = -1e30


@jax.jit
def nearest_and_error(
    hidden: Float[Array, "T D"],
    mask: Bool[Array, " T"],
    previous_hidden: Float[Array, "T D"],
    previous_mask: Bool[Array, " T"],
) -> tuple[Float[Array, " T"], Float[Array, " T"]]:
    """Return each token's largest cosine similarity to a state of the previous chunk, and its reconstruction error.

    States are centred on the mean of the previous chunk and scaled to length 1.  The reconstruction is Nadaraya–Watson
    regression, which is attention to the previous chunk.  Its squared error is capped at 1, the error of predicting
    nothing.

    Args:
        hidden: states of the chunk.
        mask: True at its real tokens; results at other positions have no meaning.
        previous_hidden: states of the previous chunk.
        previous_mask: True at its real tokens; there is at least one.
    """
    # Padding may be anything, NaN included, and 0 · NaN is NaN.
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


@functools.cache
def similarity_flops(tokens: int, width: int) -> float:
    """Count the FLOPs of :func:`nearest_and_error` for chunks of so many tokens and hidden states of this width."""
    states = jax.ShapeDtypeStruct((tokens, width), jnp.float32)
    mask = jax.ShapeDtypeStruct((tokens,), jnp.bool_)
    return float(count_flops(nearest_and_error, states, mask, states, mask))


def _unit(rows: Float[Array, "T D"]) -> Float[Array, "T D"]:
    """Scale rows to length 1; rows of zeros stay zero."""
    length = jnp.sqrt(jnp.sum(jnp.square(rows), axis=1))
    return rows / jnp.maximum(length, 1e-6)[:, None]
