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
from ponderttt.models.projection import product

#: Rows of a query block: small enough for its scores to stay in a CPU's cache; the fastest of 64, 128 and 256.
QUERY_BLOCK = 128
#: Largest number of blocks: each is compiled separately.
MAX_BLOCKS = 16
#: Added to the scores of keys that a query may not see.
MASKED = -1e30
#: A key counts as ignored if its weight is below this share of the uniform weight over visible keys.
SPARSE_SHARE = 0.1


class AttentionStatistics(NamedTuple):
    """How each head of each query attends, over keys that the mask shows; zeros for a query without keys."""

    #: Entropy of the weights, nats.
    entropy: Float[Array, "*L N T"]
    #: Expected number of tokens from the query back to the key.
    distance: Float[Array, "*L N T"]
    #: Share of the visible keys with less than :data:`SPARSE_SHARE` of the uniform weight.
    sparsity: Float[Array, "*L N T"]


def each(function: Callable[..., Any], *items: Array) -> Any:
    """Apply ``function`` to every item along the leading axis and stack the results, arrays or trees of arrays.

    A CPU takes items in turn, so that intermediate values stay in cache; an accelerator, or the devices of a mesh, take
    all at once.  The choice is made when a program is lowered for its platform.
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
    """Softmax attention of every position of a sequence to itself and those before it, float32.

    Args:
        query: N heads; query heads ``N/K · i … N/K · (i + 1) − 1`` read key and value head i.
        key: K heads.
        value: K heads.
        mask: False where a key must not be attended to (padding).
        scale: factor of the scores; H^-½ by default.
        window: most positions that a query sees, its own included; all by default.
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
    """Return :func:`causal_attention` and statistics [N, ``observe``] of its last ``observe`` queries.

    Statistics are computed for one block of queries at a time, so no [T, T] array is kept.
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
    return read.transpose(2, 0, 1, 3).reshape(query.shape), statistics


def _attend_group(
    query: Float[Array, "G T H"],
    key: Float[Array, "T H"],
    value: Float[Array, "T H"],
    mask: Bool[Array, " T"],
    window: Int[Array, ""] | None,
    observe: int,
) -> tuple[Float[Array, "G T H"], tuple[Array, ...]]:
    """Attend with the scaled queries of one key head, one block at a time; return reads and statistics [G, T]."""
    group, length, head_dim = query.shape
    position = jnp.arange(length)
    size = max(QUERY_BLOCK, -(-length // MAX_BLOCKS))
    read, seen = [], []
    for start in range(0, length, size):
        stop = min(start + size, length)
        # Queries of a block see keys up to its end: everything later is never multiplied.
        rows = query[:, start:stop].reshape(-1, head_dim)
        scores = product("TH,SH->TS", rows, key[:stop]).reshape(group, stop - start, stop)
        back = position[start:stop, None] - position[:stop]
        visible = (back >= 0) & mask[:stop]
        if window is not None:
            visible &= back < window
        # Added, not substituted: the weights of a query that sees no key stay finite.
        scores += jnp.where(visible, 0.0, MASKED)
        shifted = scores - scores.max(axis=-1, keepdims=True)
        weight = jnp.exp(shifted)
        total = weight.sum(axis=-1, keepdims=True)
        if stop > length - observe:
            seen.append(_statistics(shifted, weight, total[..., 0], visible.sum(-1), start))
        block = product("TS,SH->TH", weight.reshape(-1, stop), value[:stop])
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
    """Return the weights of a block of queries from ``start`` on, and the totals by which to divide them.

    The weight of a key that a query may not see is zero.
    """
    rows, keys = weight.shape[1:]
    entropy = jnp.log(total) - (weight * shifted).sum(-1) / total
    distance = jnp.arange(start, start + rows) - weight @ jnp.arange(keys, dtype=jnp.float32) / total
    few = weight < (SPARSE_SHARE / jnp.maximum(visible, 1) * total)[..., None]
    hidden = keys - visible
    sparsity = (few.sum(-1) - hidden) / jnp.maximum(visible, 1)
    return AttentionStatistics(*(jnp.where(visible > 0, s, 0.0) for s in (entropy, distance, sparsity)))
