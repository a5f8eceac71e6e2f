"""The key–value cache and the programs that fill it: a whole prompt at once, then one token at a time.

Shapes are static. Rows are padded on the left, so that all rows end in the same slot. No token attends to padding, and
positions count real tokens (:func:`ponderttt.models.families.family.real_positions`). Rotary positions matter by their
differences only, so slot numbers serve for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ponderttt.models.attention import MASKED, causal_attention, each
from ponderttt.models.blocks import after_attention, finish_block, heads_of
from ponderttt.models.decoder import Decoder, embedded
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Place, Shape
from ponderttt.models.projection import product, project_kept
from ponderttt.models.quantised import by_rows, opened_block
from ponderttt.models.sharding import host_memory

#: Lengths of prompts and caches are multiples of these, so that few programs are compiled.
PROMPT_BUCKET, CACHE_BUCKET = 64, 64


class Unstacked(NamedTuple):
    """A decoder's parameters, block by block.

    Reading the parameters is nearly all the time of a step; slices of a stack would be copied first.
    """

    blocks: tuple[dict[str, Any], ...]
    outer: dict[str, Any]
    #: [V, D], see :func:`~ponderttt.models.quantised.by_rows`.
    unembedding: Any


class Cache(NamedTuple):
    """Keys and values of S slots for each of B rows; the first ``filled`` slots are taken."""

    #: One array per block, written in place; the slot axis is inside the head axis, as batched products need it.
    keys: tuple[Float[Array, "B K S H"], ...]
    values: tuple[Float[Array, "B K S H"], ...]
    #: False where a slot is padding or empty.
    real: Bool[Array, "B S"]
    filled: Int[Array, ""]
    #: Rotary position of the first slot.
    offset: Int[Array, ""]


class Fresh(NamedTuple):
    """Keys and values of the position that a step read, one array per block."""

    keys: tuple[Float[Array, "B K H"], ...]
    values: tuple[Float[Array, "B K H"], ...]


class Read(NamedTuple):
    """Outputs of a model at the positions that it read."""

    #: Final normed hidden states, float32.
    hidden: Float[Array, "*B D"]
    #: The residual stream after ``split_layer`` blocks; None without a ``split_layer``.
    split: Float[Array, "*B D"] | None


def unstack(model: Decoder) -> Unstacked:
    """Return the parameters of a decoder, block by block; on a CPU they share the memory of the stacks."""
    before, after = model.blocks_before.arrays(), model.blocks_after.arrays()
    blocks = [
        {name: jax.tree.map(partial(_layer, index), stack) for name, stack in part.items()}
        for part in (before, after)
        for index in range(next(iter(part.values())).shape[0])
    ]
    outer = model.outer.arrays()
    return Unstacked(tuple(blocks), outer, by_rows(model.unembedding_matrix()))


def _layer(index: int, stack: Array) -> Array:
    """Return one block's part of a stack on its devices; it shares the memory of a host array."""
    if host_memory(stack):
        (device,) = stack.sharding.device_set
        return jax.device_put(np.asarray(stack)[index], device)
    return stack[index]


def bucket(length: int, size: int) -> int:
    """Return the smallest multiple of ``size`` that is at least ``length`` and not 0."""
    return max(1, -(-length // size)) * size


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int, length: int) -> Int[np.ndarray, "B T"]:
    """Return prompts of different lengths as one array."""
    tokens = np.full((len(prompts), length), pad_id, np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        if len(prompt):
            row[-len(prompt) :] = prompt
    return tokens


def prefill(
    shape: Shape, weights: Unstacked, tokens: Int[Array, "B T"], slots: int, split_layer: int | None = None
) -> tuple[Read, Cache]:
    """Read prompts, padded on the left with the pad id, into a fresh cache.

    Args:
        shape: shape of the model.
        weights: its parameters.
        tokens: the prompts.
        slots: S of the cache, at least T.
        split_layer: number of blocks after which to return the residual stream as well.

    Returns:
        The outputs at each position [B, T], and the cache.
    """
    family, real = family_of(shape), tokens < shape.vocab_size
    hidden = embedded(shape, weights.outer, tokens)
    places = family.places(shape, jnp.arange(tokens.shape[1]))
    keys: list[Array] = []
    values: list[Array] = []
    split = [hidden]
    room = (0, slots - tokens.shape[1])
    for stored, kind in zip(weights.blocks, family.kinds(shape), strict=True):
        block = opened_block(stored)
        hidden, key, value = _read_block(shape, block, places.of(kind), hidden, real)
        for whole, found in ((keys, key), (values, value)):
            whole.append(jnp.pad(found.transpose(0, 2, 1, 3), ((0, 0), (0, 0), room, (0, 0))))
        split.append(hidden)
    final = family.final_norm(shape, weights.outer, hidden.astype(jnp.float32))
    filled = jnp.asarray(tokens.shape[1], jnp.int32)
    return Read(final, None if split_layer is None else split[split_layer]), Cache(
        tuple(keys), tuple(values), jnp.pad(real, ((0, 0), room)), filled, jnp.zeros_like(filled)
    )


def step(
    shape: Shape, weights: Unstacked, tokens: Int[Array, " B"], cache: Cache, split_layer: int | None = None
) -> tuple[Read, Fresh]:
    """Read one more token in each row; return the outputs there [B] and the keys and values to write.

    :func:`write` is a separate program: inside this one it would copy whole arrays for the products that read them.
    """
    family, slot = family_of(shape), cache.filled
    position = cache.real.sum(-1, keepdims=True)
    # All functions of a block work position by position, so the rows of a batch can serve as positions.
    hidden = family.embed(shape, weights.outer, tokens[:, None], position)[:, 0]
    places = family.places(shape, (slot + cache.offset)[None])
    back = slot - jnp.arange(cache.real.shape[1])
    keys: list[Array] = []
    values: list[Array] = []
    split = [hidden]
    for index, (stored, kind) in enumerate(zip(weights.blocks, family.kinds(shape), strict=True)):
        block = opened_block(stored)
        place = places.of(kind)
        query, key, value = heads_of(shape, block, hidden, place)
        keys.append(key)
        values.append(value)
        visible = cache.real if place.window is None else cache.real & (back < place.window)
        earlier = cache.keys[index], cache.values[index], visible
        read = _attend(query, key, value, *earlier, shape.query_scale)
        hidden = finish_block(shape, block, *after_attention(shape, block, hidden, read))
        split.append(hidden)
    final = family.final_norm(shape, weights.outer, hidden.astype(jnp.float32))
    kept = None if split_layer is None else split[split_layer]
    return Read(final, kept), Fresh(tuple(keys), tuple(values))


@partial(jax.jit, donate_argnums=(0,))
def write(cache: Cache, fresh: Fresh) -> Cache:
    """Return the cache with one more slot, written in place; the given cache can no longer be used."""
    slot = cache.filled

    def into(arrays: tuple[Array, ...], rows: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(
            lax.dynamic_update_slice(array, row[:, :, None], (0, 0, slot, 0))
            for array, row in zip(arrays, rows, strict=True)
        )

    taken = jnp.ones((len(cache.real), 1), bool)
    real = lax.dynamic_update_slice(cache.real, taken, (0, slot))
    return Cache(into(cache.keys, fresh.keys), into(cache.values, fresh.values), real, slot + 1, cache.offset)


def logits_of(weights: Unstacked, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
    """Return logits over the vocabulary, float32; the pad id has none."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    return project_kept(rows, weights.unembedding).reshape(*hidden.shape[:-1], -1)


def _read_block(
    shape: Shape,
    block: Mapping[str, Array],
    place: Place,
    hidden: Float[Array, "B T D"],
    real: Bool[Array, "B T"],
) -> tuple[Float[Array, "B T D"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
    def one(row: Array, mask: Array) -> tuple[Array, Array, Array]:
        query, key, value = heads_of(shape, block, row, place)
        read = causal_attention(query, key, value, mask, shape.query_scale, place.window)
        return finish_block(shape, block, *after_attention(shape, block, row, read)), key, value

    found: tuple[Array, Array, Array] = each(one, hidden, real)
    return found


def _attend(
    query: Float[Array, "B N H"],
    key: Float[Array, "B K H"],
    value: Float[Array, "B K H"],
    keys: Float[Array, "B K S H"],
    values: Float[Array, "B K S H"],
    visible: Bool[Array, "B S"],
    scale: float,
) -> Float[Array, "B N H"]:
    """Attend with one query per row to its own key and to the earlier keys that it may see."""
    rows, heads, head_dim = query.shape
    grouped = (query * scale).reshape(rows, keys.shape[1], -1, head_dim)
    scores = product("BKGH,BKSH->BKGS", grouped, keys)
    own = product("BKGH,BKH->BKG", grouped, key)
    seen = scores + jnp.where(visible, 0.0, MASKED)[:, None, None]
    weight = jax.nn.softmax(jnp.concatenate([seen, own[..., None]], axis=-1), axis=-1)
    read = product("BKGS,BKSH->BKGH", weight[..., :-1], values)
    read += weight[..., -1:] * value[:, :, None]
    return read.reshape(rows, heads, head_dim)
