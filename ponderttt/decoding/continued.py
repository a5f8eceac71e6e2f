"""The cache of a text whose last chunk has begun, token by token, after a ring of whole chunks."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ponderttt.decoding.cache import CACHE_BUCKET, Cache, bucket
from ponderttt.frozen.reading import Start
from ponderttt.models.families.family import Shape
from ponderttt.models.past_attention import Index, Past
from ponderttt.models.streaming import Fresh, Ring, turned_sinks


def after_start(shape: Shape, begun: Start, tokens: int) -> Cache:
    """Return the cache with which a chunk continues after its first ``tokens`` tokens.

    Slots are in the order of positions: front, what else the chunk sees, the chunk, and room for its other tokens.
    """
    ring, index, split = begun.ring, begun.place, len(begun.past[0].keys)
    parts = [
        _in_order(shape, ring, first, past, fresh, jnp.asarray(index))
        for first, past, fresh in zip((0, split), begun.past, begun.fresh, strict=True)
    ]
    keys, values = ([block for part in parts for block in part[which]] for which in (0, 1))
    slots, filled = jnp.arange(keys[0].shape[2])[None], _own_slot(ring, index) + tokens
    # Once the start has fallen out, sinks hold the front.
    first_real = ring.front if index > ring.slots else 0
    offset = ring.start(max(0, index - ring.slots)) - ring.front
    return Cache(
        tuple(keys),
        tuple(values),
        (slots >= first_real) & (slots < filled),
        jnp.asarray(filled, jnp.int32),
        jnp.asarray(offset, jnp.int32),
    )


def _own_slot(ring: Ring, index: Index) -> Index:
    """Return the slot of the first own token of a chunk."""
    return ring.front + ring.filled(index) * ring.chunk_size


@partial(jax.jit, static_argnums=(0, 1, 2))
def _in_order(
    shape: Shape, ring: Ring, first: int, past: Past, fresh: Fresh, index: Array
) -> tuple[list[Array], list[Array]]:
    """Return keys and values [1, K, S, H] of each block, from block ``first`` on, in the order of positions."""
    size, front = ring.chunk_size, ring.front
    room = bucket(front + (ring.slots + 1) * size, CACHE_BUCKET)
    slid = index > ring.slots

    def ordered(whole: Array, sinks: Array, found: Array) -> list[Array]:
        in_turn = jnp.roll(whole, jnp.where(slid, -(index % ring.slots) * size, 0), axis=2)
        with_sinks = jnp.concatenate([sinks, in_turn[:, :, ring.sinks :]], axis=2)
        # Chunk 0 has just been read with the front.
        lead = found[:, :, :front] if found.shape[2] > size else sinks[:, :, :front]
        seen = jnp.concatenate([lead, jnp.where(slid, with_sinks, in_turn)], axis=2)
        slots = jnp.pad(seen, ((0, 0), (0, 0), (0, room - seen.shape[2]), (0, 0)))
        slots = lax.dynamic_update_slice(slots, found[:, :, -size:], (0, 0, _own_slot(ring, index), 0))
        return [block[None] for block in slots]

    sink_keys = turned_sinks(shape, ring, first, past.sink_keys, index)
    return (
        ordered(past.keys, sink_keys, fresh.keys),
        ordered(past.values, past.sink_values, fresh.values),
    )
