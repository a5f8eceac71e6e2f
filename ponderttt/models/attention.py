"""Causal grouped-query attention with rotary positions, blocked so that the upper triangle is never computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

#: Rows of a query block. On a CPU the scores of a block then stay in cache; measured best of 64, 128, 256.
QUERY_BLOCK = 128
#: At most this many blocks, since each is its own piece of the compiled program.
MAX_BLOCKS = 16
_MASKED = -1e30


def rotary_angles(
    length: int, head_dim: int, base: float
) -> tuple[Float[Array, "T H/2"], Float[Array, "T H/2"]]:
    """Cosines and sines of rotary position embedding (Su et al. 2021) for positions 0 … ``length`` − 1."""
    frequency = 1.0 / base ** (jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle = jnp.arange(length, dtype=jnp.float32)[:, None] * frequency
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    heads: Float[Array, "T N H"], angles: tuple[Float[Array, "T H/2"], Float[Array, "T H/2"]]
) -> Float[Array, "T N H"]:
    """Rotate the pairs (i, i + H/2) of every head by its position's angles; computed in float32."""
    cosine, sine = angles[0][:, None], angles[1][:, None]
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(heads.dtype)


def each(function: Callable[..., Array], *items: Array) -> Array:
    """``function`` of every item along the leading axis, stacked.

    A CPU takes one item after the other, whose intermediate values then stay in cache; an accelerator takes all at
    once.  The choice is made when a program is lowered for its platform.
    """
    return lax.platform_dependent(
        *items,
        cpu=lambda *stacked: lax.map(lambda item: function(*item), stacked),
        default=jax.vmap(function),
    )


def causal_attention(
    query: Float[Array, "T N H"],
    key: Float[Array, "T K H"],
    value: Float[Array, "T K H"],
    mask: Bool[Array, " T"],
) -> Float[Array, "T N H"]:
    """Softmax attention of every position of a sequence to itself and those before it.

    Args:
        query: N heads; query heads ``N/K · i … N/K · (i + 1) − 1`` read key and value head i.
        key: K heads.
        value: K heads.
        mask: False where a key must not be attended to (padding).
    """
    length, heads, head_dim = query.shape
    kv_heads = key.shape[1]
    # Queries that share a key head go together: G stands for such a group.
    grouped = (query * head_dim**-0.5).reshape(length, kv_heads, heads // kv_heads, head_dim)
    hidden_keys = jnp.where(mask, 0.0, _MASKED)
    read = each(
        partial(_attend_group, hidden_keys=hidden_keys),
        grouped.transpose(1, 2, 0, 3),
        key.transpose(1, 0, 2),
        value.transpose(1, 0, 2),
    )
    return read.transpose(2, 0, 1, 3).reshape(query.shape).astype(query.dtype)


def _attend_group(
    query: Float[Array, "G T H"],
    key: Float[Array, "T H"],
    value: Float[Array, "T H"],
    hidden_keys: Float[Array, " T"],
) -> Float[Array, "G T H"]:
    """Attention of the scaled queries of one key head, a block of queries at a time."""
    group, length, head_dim = query.shape
    position = jnp.arange(length)
    size = max(QUERY_BLOCK, -(-length // MAX_BLOCKS))
    read = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        # Queries of a block see keys up to its end: everything later is never multiplied.
        rows = query[:, start:stop].reshape(-1, head_dim)
        scores = jnp.einsum("TH,SH->TS", rows, key[:stop]).reshape(group, stop - start, stop)
        later = position[:stop] > position[start:stop, None]
        scores = scores.astype(jnp.float32) + jnp.where(later, _MASKED, hidden_keys[:stop])
        weight = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
        total = weight.sum(axis=-1, keepdims=True)
        weight = weight.reshape(-1, stop).astype(value.dtype)
        block = jnp.einsum("TS,SH->TH", weight, value[:stop])
        read.append(block.reshape(group, stop - start, head_dim) / total)
    return jnp.concatenate(read, axis=1)
