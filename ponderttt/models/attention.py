"""Causal grouped-query attention, blocked so that the upper triangle is never computed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ponderttt.models import sharding

#: Rows of a query block. On a CPU the scores of a block then stay in cache; measured best of 64, 128, 256.
QUERY_BLOCK = 128
#: At most this many blocks, since each is its own piece of the compiled program.
MAX_BLOCKS = 16
#: Added to the scores of keys that a query may not see.
MASKED = -1e30
#: A key is passed over if its weight is below this share of what it would have if all visible keys had the same.
SPARSE_SHARE = 0.1


class AttentionStatistics(NamedTuple):
    """How each head of each query attends; keys that the mask hides do not count.  A query without keys has zeros."""

    #: Entropy of the weights, nats.
    entropy: Float[Array, "*L N T"]
    #: Expected number of tokens from the query back to the key.
    distance: Float[Array, "*L N T"]
    #: Share of the visible keys with less than :data:`SPARSE_SHARE` of the uniform weight.
    sparsity: Float[Array, "*L N T"]


def each(function: Callable[..., Any], *items: Array) -> Any:
    """``function`` of every item along the leading axis, stacked; an array, or a tree of arrays.

    A CPU takes one item after the other, whose intermediate values then stay in cache; an accelerator takes all at
    once, and so do the devices of a mesh.  The choice is made when a program is lowered for its platform.
    """
    if sharding.in_use():
        return jax.vmap(function)(*items)
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
    scale: float | None = None,
    window: Int[Array, ""] | None = None,
) -> Float[Array, "T N H"]:
    """Softmax attention of every position of a sequence to itself and those before it.

    Args:
        query: N heads; query heads ``N/K · i … N/K · (i + 1) − 1`` read key and value head i.
        key: K heads.
        value: K heads.
        mask: False where a key must not be attended to (padding).
        scale: of the scores; H^-½ by default.
        window: positions that a query sees at most, its own included; all by default.
    """
    read, _ = _attention(query, key, value, mask, scale, window, observe=0)
    return read


def observed_attention(
    query: Float[Array, "T N H"],
    key: Float[Array, "T K H"],
    value: Float[Array, "T K H"],
    mask: Bool[Array, " T"],
    observe: int,
    scale: float | None = None,
    window: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "T N H"], AttentionStatistics]:
    """:func:`causal_attention`, and statistics [N, ``observe``] of its last ``observe`` queries.

    They are taken of a block of queries while its weights are at hand, so no [T, T] array is ever kept.
    """
    read, statistics = _attention(query, key, value, mask, scale, window, observe)
    # [K, G, T] → [N, T]: heads that share a key head follow each other.
    return read, AttentionStatistics(*(s.reshape(-1, observe) for s in statistics))


def _attention(
    query: Float[Array, "T N H"],
    key: Float[Array, "T K H"],
    value: Float[Array, "T K H"],
    mask: Bool[Array, " T"],
    scale: float | None,
    window: Int[Array, ""] | None,
    observe: int,
) -> tuple[Float[Array, "T N H"], tuple[Array, ...]]:
    length, heads, head_dim = query.shape
    kv_heads = key.shape[1]
    # Queries that share a key head go together: G stands for such a group.
    scaled = query * (head_dim**-0.5 if scale is None else scale)
    grouped = scaled.reshape(length, kv_heads, heads // kv_heads, head_dim)
    read, statistics = each(
        partial(_attend_group, mask=mask, window=window, observe=observe),
        grouped.transpose(1, 2, 0, 3),
        key.transpose(1, 0, 2),
        value.transpose(1, 0, 2),
    )
    return read.transpose(2, 0, 1, 3).reshape(query.shape).astype(query.dtype), statistics


def _attend_group(
    query: Float[Array, "G T H"],
    key: Float[Array, "T H"],
    value: Float[Array, "T H"],
    mask: Bool[Array, " T"],
    window: Int[Array, ""] | None,
    observe: int,
) -> tuple[Float[Array, "G T H"], tuple[Array, ...]]:
    """Attention of the scaled queries of one key head, a block of queries at a time; what was observed [G, T]."""
    group, length, head_dim = query.shape
    position = jnp.arange(length)
    size = max(QUERY_BLOCK, -(-length // MAX_BLOCKS))
    read, seen = [], []
    for start in range(0, length, size):
        stop = min(start + size, length)
        # Queries of a block see keys up to its end: everything later is never multiplied.
        rows = query[:, start:stop].reshape(-1, head_dim)
        scores = jnp.einsum("TH,SH->TS", rows, key[:stop]).reshape(group, stop - start, stop)
        back = position[start:stop, None] - position[:stop]
        visible = (back >= 0) & mask[:stop]
        if window is not None:
            visible &= back < window
        # Added, and not put in the place of scores: where a query sees no key, its weights stay finite.
        scores = scores.astype(jnp.float32) + jnp.where(visible, 0.0, MASKED)
        shifted = scores - scores.max(axis=-1, keepdims=True)
        weight = jnp.exp(shifted)
        total = weight.sum(axis=-1, keepdims=True)
        if stop > length - observe:
            seen.append(_statistics(shifted, weight, total[..., 0], visible.sum(-1), start))
        weight = weight.reshape(-1, stop).astype(value.dtype)
        block = jnp.einsum("TS,SH->TH", weight, value[:stop])
        read.append(block.reshape(group, stop - start, head_dim) / total)
    joined = (jnp.concatenate(parts, axis=-1)[:, -observe:] for parts in zip(*seen, strict=True))
    return jnp.concatenate(read, axis=1), tuple(joined)


def _statistics(
    shifted: Float[Array, "G T S"],
    weight: Float[Array, "G T S"],
    total: Float[Array, "G T"],
    visible: Int[Array, " T"],
    start: int,
) -> AttentionStatistics:
    """Of a block of queries from ``start`` on: weights before they are divided by their ``total``.

    The weight of a key that a query may not see is zero.
    """
    rows, keys = weight.shape[1:]
    entropy = jnp.log(total) - (weight * shifted).sum(-1) / total
    distance = jnp.arange(start, start + rows) - weight @ jnp.arange(keys, dtype=jnp.float32) / total
    few = weight < (SPARSE_SHARE / jnp.maximum(visible, 1) * total)[..., None]
    hidden = keys - visible
    sparsity = (few.sum(-1) - hidden) / jnp.maximum(visible, 1)
    return AttentionStatistics(*(jnp.where(visible > 0, s, 0.0) for s in (entropy, distance, sparsity)))
