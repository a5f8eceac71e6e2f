"""Tiny streams of hidden states and fast-weight modules that tests of the loop share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ponderttt.config import FastWeightsConfig, LoRAConfig, TTTConfig
from ponderttt.fast_weights.base import FastWeights
from ponderttt.fast_weights.build import build
from ponderttt.stream_data import StreamChunks

VOCABULARY, WIDTH, CHUNK = 64, 32, 48
TINY = FastWeightsConfig(
    ttt=TTTConfig(heads=2, head_dim=8),
    lora=LoRAConfig(rank=4, inner_rate=0.02, token_share=0.25, token_choice="entropy"),
)


def make_stream(name: str, tokens: np.ndarray, seed: int = 0, last: int = CHUNK) -> StreamChunks:
    """A stream over ``tokens`` whose hidden state at i depends on tokens ≤ i only, as a causal model's does.

    ``last`` is the number of real tokens of the last chunk.
    """
    count = (len(tokens) - 1) // CHUNK
    inputs, targets = tokens[: count * CHUNK], tokens[1 : count * CHUNK + 1].astype(np.int32)
    table = np.random.default_rng(seed).normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
    shape = (count, CHUNK)
    hidden = table[inputs].reshape(*shape, WIDTH)
    # A running mean inside the chunk: future-free, and every position sees all before it.
    hidden = hidden + np.cumsum(hidden, axis=1) / np.arange(1, CHUNK + 1)[None, :, None]
    mask = np.ones(shape, bool)
    mask[-1, last:] = False
    targets = np.where(mask, targets.reshape(shape), VOCABULARY)
    ones = np.ones(count)
    entropy = np.random.default_rng(seed + 1).random(VOCABULARY).astype(np.float32)[inputs].reshape(shape)
    return StreamChunks(
        name,
        hidden,
        targets,
        mask,
        entropy,
        np.where(mask, 4.0, 0.0),
        ones,
        np.full(count, 3 * CHUNK),
        ones,
        ones,
        ones,
        ones,
    )


def random_tokens(seed: int, chunks: int) -> np.ndarray:
    """Uniformly random tokens."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, size=chunks * CHUNK + 1)


def fresh(kind: str, seed: int = 0) -> FastWeights:
    """An untrained module."""
    return build(kind, WIDTH, TINY, seed)


def awake(kind: str, seed: int = 0) -> FastWeights:
    """A module whose zero matrix is random instead, as after training, so that every path shows."""
    module = fresh(kind, seed)
    name = {"ttt": "output", "lora": "up"}[kind]
    parameter: nnx.Param = getattr(module, name)
    noise = jax.random.normal(jax.random.key(seed + 7), parameter[...].shape)
    parameter[...] = 0.3 * noise
    return module


def tree_close(a: object, b: object, tolerance: float = 1e-5) -> bool:
    """Whether two pytrees of arrays agree within an absolute and relative tolerance."""
    return all(
        bool(jnp.allclose(x, y, atol=tolerance, rtol=tolerance))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
