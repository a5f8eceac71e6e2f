"""Streams in which one feature tells which chunks' update pays, and fast weights whose updates then do."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from ponderttt.fast_weights.base import Adaptation, Chunk, FastWeights, Readout, masked_mean
from ponderttt.features.normalise import Normaliser, fit
from ponderttt.features.table import FROZEN, NAMES, frozen_index, index
from ponderttt.frozen.chunks import FrozenChunks

TOKENS, WIDTH, CHUNKS = 4, 2, 8
#: What tells; a feature that means something else on real code.
TELLS = "bracket_depth"


class Level(NamedTuple):
    """One number."""

    level: Float[Array, ""]


class PlantedWeights(FastWeights):
    """An update on a chunk lowers the loss of every later token by the first entry of the chunk's hidden states.

    More steps than one gain no more, so that whom it pays to update is all there is to learn.
    """

    reads = "losses"

    def __init__(self) -> None:
        self.factor = nnx.Param(jnp.ones(()))

    def reset(self) -> Level:
        """See the base class."""
        return Level(jnp.zeros(()))

    def score(self, fast: Level, chunk: Chunk, readout: Readout) -> Float[Array, " T"]:
        """See the base class."""
        return jnp.where(chunk.mask, chunk.nll_frozen - fast.level, 0.0)

    def score_positions(
        self, fast: Level, chunk: Chunk, readout: Readout, positions: Int[Array, " S"]
    ) -> Float[Array, " S"]:
        """See the base class."""
        return self.score(fast, chunk, readout)[positions]

    def adapt(self, fast: Level, chunk: Chunk, readout: Readout, steps: int) -> Adaptation:
        """See the base class."""
        gain = self.factor[...] * masked_mean(chunk.hidden[:, 0], chunk.mask)
        return Adaptation(
            Level(fast.level + min(steps, 1) * gain), jnp.zeros(()), jnp.asarray(steps, jnp.int32)
        )

    def next_token(self, fast: Level, chunk: Chunk, readout: Readout) -> Float[Array, "T V"]:
        """See the base class."""
        return jax.nn.log_softmax(readout.rows(chunk, None), axis=-1)


def planted_stream(name: str, seed: int, pays: float = 0.3, costs: float = -0.3) -> FrozenChunks:
    """Half of the chunks pay ``pays`` nats per later token, the others ``costs``; all else is noise."""
    draw = np.random.default_rng(seed)
    gains = draw.permutation(np.where(np.arange(CHUNKS) % 2, pays, costs)).astype(np.float32)
    nll = draw.uniform(2.0, 4.0, (CHUNKS, TOKENS)).astype(np.float32)
    features = draw.normal(size=(CHUNKS, len(FROZEN))).astype(np.float32)
    features[:, frozen_index(TELLS)] = np.sign(gains - 1e-3) + 0.2 * draw.normal(size=CHUNKS)
    one = np.ones(CHUNKS)
    shape = (CHUNKS, TOKENS)
    return FrozenChunks(
        stream_id=name,
        hidden=np.broadcast_to(gains[:, None, None], (*shape, WIDTH)).copy(),
        targets=draw.integers(0, 5, shape).astype(np.int32),
        mask=np.ones(shape, bool),
        entropy=nll,
        nll_frozen=nll,
        loss_frozen=nll.mean(-1, dtype=np.float64),
        n_bytes=np.full(CHUNKS, TOKENS),
        **dict.fromkeys(
            [
                f"{part}{unit}"
                for part in ("", "suffix_", "projection_", "feature_")
                for unit in ("flops", "seconds")
            ],
            one,
        ),
        features=features,
    )


def worth(stream: FrozenChunks) -> Float[np.ndarray, " N"]:
    """What one update after each chunk takes off the mean loss of the stream, nats per token."""
    later = np.arange(CHUNKS)[::-1]
    gains: Float[np.ndarray, " N"] = stream.hidden[:, 0, 0] * later / CHUNKS
    return gains


def best_gain(stream: FrozenChunks, updates: float) -> float:
    """What so many updates (the last one in part) take off at best: the oracle at that budget."""
    kept = np.clip(updates - np.arange(CHUNKS), 0.0, 1.0)
    return float(np.sort(worth(stream))[::-1] @ kept)


def noise_normaliser(streams: list[FrozenChunks]) -> Normaliser:
    """The statistics of the frozen features of streams; those of the loop are taken as they are."""
    rows = np.concatenate([stream.features for stream in streams])
    spread = np.tile([[-1.0], [1.0]], (len(rows) // 2, 1))
    full: Any = np.repeat(spread, len(NAMES), axis=1)
    full[:, [index(name) for name in FROZEN]] = rows
    return fit(full)
