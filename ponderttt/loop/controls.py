"""Wrong lessons, for controls: an update that learns from one must gain nothing, or do harm.

* ``shuffled``: hidden states and labels of the chunk, each in its own random order.
* ``sign_flipped``: the chunk's update in the opposite direction.
* ``other_stream``: a chunk of another stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ponderttt.errors import PonderTTTError
from ponderttt.fast_weights.base import Chunk
from ponderttt.frozen.chunks import FrozenChunks

Lesson = Literal["chunk", "shuffled", "sign_flipped", "other_stream"]


def donor_of(streams: Sequence[FrozenChunks], index: int) -> FrozenChunks:
    """Return the stream that ``other_stream`` learns from for stream ``index``: the next one, the first after the last.

    Raises:
        PonderTTTError: there is no other stream.
    """
    if len(streams) < 2:
        raise PonderTTTError(
            "the control other_stream needs a corpus of at least two streams; add a stream or remove the control from "
            "grid.methods"
        )
    return streams[(index + 1) % len(streams)]


def shuffle_chunk(chunk: Chunk, seeds: list[int]) -> tuple[Chunk, Int[np.ndarray, "B T"]]:
    """Shuffle the states and the labels of chunks of B streams, each in its own order.

    Only real tokens change places, so the mask stays the same.

    Returns:
        The chunks, and the positions that their hidden states come from.
    """
    mask = np.asarray(chunk.mask)
    states, labels = np.tile(np.arange(mask.shape[1]), (2, len(mask), 1))
    for b, seed in enumerate(seeds):
        real = np.flatnonzero(mask[b])
        for order, which in ((states, 0), (labels, 1)):
            order[b, real] = np.random.default_rng([seed, which]).permutation(real)

    def by(order: Int[np.ndarray, "B T"], values: jax.Array) -> jax.Array:
        return jnp.take_along_axis(
            values, jnp.asarray(order).reshape(order.shape + (1,) * (values.ndim - 2)), 1
        )

    return (
        Chunk(
            hidden=by(states, chunk.hidden),
            targets=by(labels, chunk.targets),
            mask=chunk.mask,
            entropy=by(states, chunk.entropy),
            nll_frozen=by(labels, chunk.nll_frozen),
            split=None if chunk.split is None else by(states, chunk.split),
        ),
        states,
    )
