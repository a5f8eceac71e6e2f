"""Attention of a chunk's queries to the chunk itself and to cached keys and values, one cached chunk at a time.

Softmax is computed in parts that are merged by their maxima (Milakov & Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022,
arXiv:2205.14135), so no more scores exist at a time than those of one block of queries and one cached chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ponderttt.models import sharding
from ponderttt.models.attention import MASKED, QUERY_BLOCK, SPARSE_SHARE, AttentionStatistics
from ponderttt.models.projection import product

#: An index: traced where a program runs, an integer where its FLOPs are counted.
Index = Int[Array, ""] | int


class Past(NamedTuple):
    """Keys and values of earlier tokens in L blocks: S slots in a ring of chunks, and the stream's first Z tokens (sinks)."""

    keys: Float[Array, "L K S H"]
    values: Float[Array, "L K S H"]
    sink_keys: Float[Array, "L K Z H"]
    sink_values: Float[Array, "L K Z H"]


class Reach(NamedTuple):
    """Which tokens of a past a chunk of T tokens attends to; positions are those of their rotations."""

    #: Position of each query.
    own: Int[Array, " T"]
    #: Tokens of a cached chunk.
    chunk_size: int
    #: Number of cached chunks; they fill the first slots of the ring.
    filled: Index
    #: Position of the first token of each of the C cached chunks.
    starts: Int[Array, " C"]
    #: Cached tokens before this position are hidden; sinks take their places.
    oldest: Index
    #: Position of each sink, and whether it is visible.
    sinks: Int[Array, " Z"]
    sinks_visible: Bool[Array, " Z"]


class _Keys(NamedTuple):
    """Some keys and values of one head."""

    keys: Float[Array, "S H"]
    values: Float[Array, "S H"]
    positions: Int[Array, " S"]
    visible: Bool[Array, " S"]


class _Part(NamedTuple):
    """Softmax of a block of T queries over some of their keys, not divided by its total yet."""

    #: Largest score.
    top: Float[Array, "G T 1"]
    #: Sum of the weights exp(score − top).
    total: Float[Array, "G T 1"]
    read: Float[Array, "G T H"]
    #: Number of visible keys.
    visible: Int[Array, " T"]
    #: Sum of weight · (score − top) and of weight · (position of the query − position of the key).
    surprise: Float[Array, "G T"]
    distance: Float[Array, "G T"]


def attend(
    query: Float[Array, "T N H"],
    key: Float[Array, "T K H"],
    value: Float[Array, "T K H"],
    mask: Bool[Array, " T"],
    past: Past,
    layer: Index,
    reach: Reach,
    scale: float,
    window: Int[Array, ""] | None,
    observe: int = 0,
) -> tuple[Float[Array, "T N H"], AttentionStatistics]:
    """Attend causally to the chunk itself, to cached chunks and to sinks.

    Args:
        query: N heads of T tokens; query heads ``N/K · i … N/K · (i + 1) − 1`` read key and value head i.
        key: K heads of the same tokens.
        value: K heads.
        mask: False where a token of the chunk is padding.
        past: earlier keys and values.
        layer: the block's place in ``past``.
        reach: which of them are visible.
        scale: factor of the scores.
        window: most positions that a query sees, its own included; None is all.
        observe: number of last queries whose statistics are returned.

    Returns:
        What each head read, and statistics [N, ``observe``].
    """
    length, heads, head_dim = query.shape
    kv_heads = key.shape[1]
    # Queries that share a key head go together: G stands for such a group.
    grouped = (query * scale).reshape(length, kv_heads, heads // kv_heads, head_dim)
    read, statistics = _each_head(
        partial(_attend_head, mask=mask, reach=reach, window=window, observe=observe),
        past,
        layer,
        grouped.transpose(1, 2, 0, 3),
        key.transpose(1, 0, 2),
        value.transpose(1, 0, 2),
    )
    read = read.transpose(2, 0, 1, 3).reshape(query.shape)
    return read, AttentionStatistics(*(s.reshape(heads, observe) for s in statistics))


#: Reads a head's cached keys and values of some slots: ``(first, count) → keys, values``.
Lookup = Callable[[Any, int], tuple[Array, Array]]


def _each_head(function: Callable[..., Any], past: Past, layer: Index, *items: Array) -> Any:
    """Apply ``function(lookup, sink_keys, sink_values, *items)`` to every head, the leading axis of ``items``.

    A CPU takes heads in turn and copies only the slots that it visits. An accelerator takes all heads at once, and the
    devices of a mesh take their own.
    """

    def in_turn(*stacked: Array) -> Any:
        def one(arguments: tuple[Array, ...]) -> Any:
            head, *rest = arguments

            def lookup(first: Any, count: int) -> tuple[Array, Array]:
                place, size = (layer, head, first, 0), (1, 1, count, past.keys.shape[-1])
                keys, values = (lax.dynamic_slice(whole, place, size) for whole in (past.keys, past.values))
                return keys[0, 0], values[0, 0]

            return function(lookup, *rest)

        return lax.map(one, (jnp.arange(past.keys.shape[1]), *stacked))

    def at_once(*stacked: Array) -> Any:
        def one(keys: Array, values: Array, *rest: Array) -> Any:
            def lookup(first: Any, count: int) -> tuple[Array, Array]:
                return lax.dynamic_slice_in_dim(keys, first, count), lax.dynamic_slice_in_dim(
                    values, first, count
                )

            return function(lookup, *rest)

        return jax.vmap(one)(past.keys[layer], past.values[layer], *stacked)

    stacked = (past.sink_keys[layer], past.sink_values[layer], *items)
    if sharding.in_use():
        return at_once(*stacked)
    return lax.platform_dependent(*stacked, cpu=in_turn, default=at_once)


def _attend_head(
    lookup: Lookup,
    sink_key: Float[Array, "Z H"],
    sink_value: Float[Array, "Z H"],
    query: Float[Array, "G T H"],
    key: Float[Array, "T H"],
    value: Float[Array, "T H"],
    *,
    mask: Bool[Array, " T"],
    reach: Reach,
    window: Int[Array, ""] | None,
    observe: int,
) -> tuple[Float[Array, "G T H"], tuple[Array, ...]]:
    """Attend with the scaled queries of one key head, one block at a time; return reads and statistics [G, T]."""
    size = reach.chunk_size

    def cached(slot: Any) -> _Keys:
        positions = reach.starts[slot] + jnp.arange(size)
        return _Keys(*lookup(slot * size, size), positions, positions >= reach.oldest)

    read, seen = [], []
    for start, stop in _blocks(query.shape[1]):
        block, own = query[:, start:stop], reach.own[start:stop]
        # Queries of a block see keys of the chunk up to its end: everything later is never multiplied.
        near = _Keys(
            jnp.concatenate([sink_key, key[:stop]]),
            jnp.concatenate([sink_value, value[:stop]]),
            jnp.concatenate([reach.sinks, reach.own[:stop]]),
            jnp.concatenate([reach.sinks_visible, mask[:stop]]),
        )

        def visit(slot: Any, part: _Part, block: Array = block, own: Array = own) -> _Part:
            return _merged(part, _part(block, own, cached(slot), window))

        whole = lax.fori_loop(0, reach.filled, visit, _part(block, own, near, window))
        read.append(whole.read / whole.total)
        if stop > query.shape[1] - observe:

            def ignored(keys: _Keys, block: Array = block, own: Array = own, whole: _Part = whole) -> Array:
                return _ignored(block, own, keys, window, whole)

            def count(slot: Any, found: Array, ignored: Callable[[_Keys], Array] = ignored) -> Array:
                return found + ignored(cached(slot))

            seen.append(_statistics(whole, lax.fori_loop(0, reach.filled, count, ignored(near))))
    joined = (jnp.concatenate(parts, axis=-1)[:, -observe:] for parts in zip(*seen, strict=True))
    nothing = (jnp.zeros((len(query), 0)),) * len(AttentionStatistics._fields)
    return jnp.concatenate(read, axis=1), tuple(joined) if observe else nothing


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, QUERY_BLOCK):
        yield start, min(start + QUERY_BLOCK, length)


def _scores(
    block: Float[Array, "G T H"], own: Int[Array, " T"], keys: _Keys, window: Int[Array, ""] | None
) -> tuple[Float[Array, "G T S"], Bool[Array, "T S"]]:
    """Return scores of a block of queries, and which keys they see."""
    back = own[:, None] - keys.positions
    visible = (back >= 0) & keys.visible
    if window is not None:
        visible &= back < window
    rows = block.reshape(-1, block.shape[-1])
    scores = product("TH,SH->TS", rows, keys.keys).reshape(*block.shape[:2], -1)
    # Added, not substituted: the weights of a query that sees no key stay finite.
    return scores + jnp.where(visible, 0.0, MASKED), visible


def _part(
    block: Float[Array, "G T H"], own: Int[Array, " T"], keys: _Keys, window: Int[Array, ""] | None
) -> _Part:
    scores, visible = _scores(block, own, keys, window)
    top = scores.max(axis=-1, keepdims=True)
    shifted = scores - top
    weight = jnp.exp(shifted)
    read = product("TS,SH->TH", weight.reshape(-1, weight.shape[-1]), keys.values)
    back = (own[:, None] - keys.positions).astype(jnp.float32)
    return _Part(
        top,
        weight.sum(axis=-1, keepdims=True),
        read.reshape(*weight.shape[:2], -1),
        visible.sum(-1),
        (weight * shifted).sum(-1),
        (weight * back).sum(-1),
    )


def _merged(one: _Part, other: _Part) -> _Part:
    """Return the softmax over the keys of both parts."""
    top = jnp.maximum(one.top, other.top)
    down, other_down = one.top - top, other.top - top
    scale, other_scale = jnp.exp(down), jnp.exp(other_down)

    def surprise(part: _Part, down: Array, scale: Array) -> Array:
        # Scores count from the larger maximum now.
        moved = part.surprise + part.total[..., 0] * jnp.where(scale > 0, down, 0.0)[..., 0]
        return scale[..., 0] * moved

    return _Part(
        top,
        scale * one.total + other_scale * other.total,
        scale * one.read + other_scale * other.read,
        one.visible + other.visible,
        surprise(one, down, scale) + surprise(other, other_down, other_scale),
        scale[..., 0] * one.distance + other_scale[..., 0] * other.distance,
    )


def _ignored(
    block: Float[Array, "G T H"],
    own: Int[Array, " T"],
    keys: _Keys,
    window: Int[Array, ""] | None,
    whole: _Part,
) -> Int[Array, "G T"]:
    """Return how many of the visible keys have little weight."""
    scores, visible = _scores(block, own, keys, window)
    few = SPARSE_SHARE / jnp.maximum(whole.visible, 1)[:, None] * whole.total
    return ((jnp.exp(scores - whole.top) < few) & visible).sum(-1)


def _statistics(whole: _Part, ignored: Int[Array, "G T"]) -> AttentionStatistics:
    """Return statistics of a block of queries over all of their keys; zeros for a query without keys."""
    total = whole.total[..., 0]
    found = (
        jnp.log(total) - whole.surprise / total,
        whole.distance / total,
        ignored / jnp.maximum(whole.visible, 1),
    )
    return AttentionStatistics(*(jnp.where(whole.visible > 0, s, 0.0) for s in found))
