"""Read a stream as an inference engine does: a chunk at a time, with keys and values of earlier tokens in a cache.

The cache is a ring of whole chunks. Rotary positions count from the start of the stream; once the oldest chunk falls out,
the stream's first tokens stay as attention sinks (Xiao et al. 2023, arXiv:2309.17453): they take the places of the oldest
tokens in the ring, and their keys are rotated to those positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ponderttt.models.attention import AttentionStatistics
from ponderttt.models.blocks import after_attention, finish_block, heads_of
from ponderttt.models.decoder import Decoder, embedded
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Shape
from ponderttt.models.past_attention import Index, Past, Reach, attend
from ponderttt.models.quantised import opened_block
from ponderttt.models.rotary import rotate


@dataclass(frozen=True)
class Ring:
    """The static shape of a cache.

    Attributes:
        chunk_size: tokens of a chunk.
        slots: chunks that it holds.
        sinks: first tokens of the stream that stay visible, those of ``front`` included.
        front: tokens in front of the first chunk (a beginning-of-sequence token), which are always visible.
    """

    chunk_size: int
    slots: int
    sinks: int
    front: int

    def start(self, index: Index) -> Index:
        """Return the position of a chunk's first own token, without ``front``."""
        return self.front + index * self.chunk_size

    def filled(self, index: Index) -> Index:
        """Return how many chunks the cache holds when chunk ``index`` is read."""
        # An integer stays one, so that a loop over the chunks has a known length.
        return min(index, self.slots) if isinstance(index, int) else jnp.minimum(index, self.slots)

    def reach(self, index: Index, length: int) -> Reach:
        """Return what ``length`` tokens of chunk ``index`` attend to; more than a chunk are ``front`` and chunk 0."""
        slots = jnp.arange(self.slots)
        # The chunk in each slot: the last one before this chunk that was written there.
        chunks = index - 1 - (index - 1 - slots) % self.slots
        slid, begin = index > self.slots, self.start(index - self.slots)
        order = jnp.arange(self.sinks)
        first = 0 if length > self.chunk_size else self.start(index)
        return Reach(
            own=first + jnp.arange(length),
            chunk_size=self.chunk_size,
            filled=self.filled(index),
            starts=self.front + chunks * self.chunk_size,
            # Slots that hold nothing yet count as before the start of the stream.
            oldest=jnp.where(slid, begin + self.sinks, self.front),
            sinks=jnp.where(slid, begin + order, order),
            sinks_visible=jnp.where(index > 0, (order < self.front) | slid, False),
        )


class Fresh(NamedTuple):
    """Keys and values of a chunk in L blocks."""

    keys: Float[Array, "L K T H"]
    values: Float[Array, "L K T H"]


def empty_past(shape: Shape, ring: Ring, layers: int, dtype: Any) -> Past:
    """Return a cache for ``layers`` blocks that holds nothing yet."""
    whole = (layers, shape.kv_heads, ring.slots * ring.chunk_size, shape.head_dim)
    sinks = (layers, shape.kv_heads, ring.sinks, shape.head_dim)
    return Past(*(jnp.zeros(size, dtype) for size in (whole, whole, sinks, sinks)))


def written(ring: Ring, past: Past, fresh: Fresh, index: Index) -> Past:
    """Return the cache with one more chunk.

    Args:
        ring: shape of the cache.
        past: the cache.
        fresh: keys and values of chunk ``index``; those of chunk 0 start with ``front``.
        index: place of the chunk since the cache was empty.
    """
    front = fresh.keys.shape[2] - ring.chunk_size
    slot = index % ring.slots * ring.chunk_size

    def into(whole: Array, found: Array) -> Array:
        return lax.dynamic_update_slice(whole, found[:, :, front:], (0, 0, slot, 0))

    def first(kept: Array, found: Array) -> Array:
        return jnp.where(index == 0, found[:, :, : ring.sinks], kept)

    return Past(
        into(past.keys, fresh.keys),
        into(past.values, fresh.values),
        first(past.sink_keys, fresh.keys),
        first(past.sink_values, fresh.values),
    )


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def store(ring: Ring, past: Past, fresh: Fresh, index: Index) -> Past:
    """Do the same as :func:`written`, in place; the given cache can no longer be used."""
    return written(ring, past, fresh, index)


def prefix_after(
    model: Decoder, tokens: Int[Array, " T"], past: Past, index: Index, ring: Ring
) -> tuple[Float[Array, "T D"], Fresh]:
    """Return :meth:`Decoder.prefix` of chunk ``index`` after the chunks in the cache, and its keys and values."""
    real = tokens < model.config.vocab_size
    positions = ring.reach(index, len(tokens)).own
    hidden = embedded(model.config, model.outer.arrays(), tokens[None], positions[None])[0]
    hidden, fresh, _ = _run(model, model.blocks_before.arrays(), 0, hidden, real, past, index, ring)
    return hidden, fresh


def suffix_after(
    model: Decoder,
    hidden: Float[Array, "S D"],
    real: Bool[Array, " S"],
    past: Past,
    index: Index,
    ring: Ring,
) -> tuple[Float[Array, "T D"], AttentionStatistics, Fresh]:
    """Return :meth:`Decoder.observed_suffix` of chunk ``index`` after the chunks in the cache, and its keys and values."""
    size = ring.chunk_size
    hidden, fresh, statistics = _run(
        model, model.blocks_after.arrays(), model.split_layer, hidden, real, past, index, ring, observe=size
    )
    return model.normed(hidden[-size:]), statistics, fresh


def _run(
    model: Decoder,
    blocks: dict[str, Any],
    first: int,
    hidden: Float[Array, "T D"],
    real: Bool[Array, " T"],
    past: Past,
    index: Index,
    ring: Ring,
    observe: int = 0,
) -> tuple[Float[Array, "T D"], Fresh, AttentionStatistics]:
    shape, family = model.config, family_of(model.config)
    reach = ring.reach(index, len(hidden))
    places = family.places(shape, reach.own)
    count = len(past.keys)
    kinds = jnp.asarray(family.kinds(shape)[first : first + count], jnp.int32)
    past = past._replace(sink_keys=turned_sinks(shape, ring, first, past.sink_keys, index))

    def step(carry: Array, layer: tuple[dict[str, Array], Array, Array]) -> tuple[Array, Any]:
        stored, kind, number = layer
        block, place = opened_block(stored), places.of(kind)
        query, key, value = heads_of(shape, block, carry, place)
        read, statistics = attend(
            query, key, value, real, past, number, reach, shape.query_scale, place.window, observe
        )
        carry = finish_block(shape, block, *after_attention(shape, block, carry, read))
        return carry, (Fresh(key.transpose(1, 0, 2), value.transpose(1, 0, 2)), statistics)

    hidden, (fresh, statistics) = lax.scan(step, hidden, (blocks, kinds, jnp.arange(count)))
    return hidden, fresh, statistics


def turned_sinks(
    shape: Shape, ring: Ring, first: int, keys: Float[Array, "L K Z H"], index: Index
) -> Float[Array, "L K Z H"]:
    """Return the keys of sinks, of the blocks from ``first`` on, at the positions that chunk ``index`` sees them at.

    Rotations add up: a key at position p that is rotated by the angles of position q is at position p + q.
    """
    family = family_of(shape)
    moved = jnp.where(index > ring.slots, ring.start(index - ring.slots), 0)
    turns = family.places(shape, moved[None])
    if turns.angles is None:
        return keys
    cosine, sine = (
        angle[jnp.asarray(family.kinds(shape)[first : first + len(keys)])] for angle in turns.angles
    )
    return jax.vmap(lambda key, *angles: rotate(key, angles))(keys, cosine, sine)
