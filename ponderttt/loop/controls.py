"""Learning from the wrong thing: what an update is worth must vanish, or turn, when what it learns from is spoilt.

* ``shuffled``: hidden states and labels of the chunk, each in a random order of its own.
* ``sign_flipped``: the update that the chunk calls for, made in the opposite direction.
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
    """The stream whose chunks ``other_stream`` gives to stream ``index``: the next one, the first after the last.

    Raises:
        PonderTTTError: there is no other stream.
    """
    if len(streams) < 2:
        raise PonderTTTError(
            "the control other_stream needs a corpus of at least two streams; add one or leave it out of grid.methods"
        )
    return streams[(index + 1) % len(streams)]


def shuffle_chunk(chunk: Chunk, seeds: list[int]) -> tuple[Chunk, Int[np.ndarray, "B T"]]:
    """Chunks of B streams whose states and labels no longer belong together.

    Only real tokens change places, so that a mask stays where it is.

    Returns:
        The chunks, and the positions that their hidden states come from, for what else is made of these.
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
