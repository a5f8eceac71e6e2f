"""Tiny streams of hidden states and fast-weight modules that tests of the loop share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ponderttt.fast_weights.base import FastWeights
from ponderttt.fast_weights.build import build
from ponderttt.features.table import FROZEN, frozen_index
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.models.families.llama import block_shapes
from ponderttt.models.suffix import SuffixWeights
from ponderttt.settings.fast_weights import (
    FastWeightsConfig,
    LoRAConfig,
    MemoryConfig,
    SuffixConfig,
    TTTConfig,
)
from tiny_llama import tiny_llama

VOCABULARY, WIDTH, CHUNK = 64, 32, 48
#: A random vocabulary projection.
UNEMBEDDING = 0.3 * jax.random.normal(jax.random.key(1), (VOCABULARY, WIDTH))
TINY = FastWeightsConfig(
    ttt=TTTConfig(heads=2, head_dim=8),
    lora=LoRAConfig(rank=4, inner_rate=0.02, token_share=0.25, token_choice="entropy"),
    suffix=SuffixConfig(blocks=1, inner_rate=0.3),
    memory=MemoryConfig(capacity=4 * CHUNK),
)
#: A backbone whose last block the tiny suffix adaptation changes; its prefix is :func:`make_stream`'s running mean.
SHAPE = tiny_llama(vocab_size=VOCABULARY, layers=1, max_context=4 * CHUNK)


def suffix_block() -> SuffixWeights:
    """The frozen weights of that block."""
    keys = iter(jax.random.split(jax.random.key(5), 16))
    blocks = {
        name: jnp.ones((1, *shape))
        if name.endswith("norm")
        else shape[-1] ** -0.5 * jax.random.normal(next(keys), (1, *shape))
        for name, shape in block_shapes(SHAPE).items()
    }
    return SuffixWeights(blocks, {"final_norm": jnp.ones(WIDTH)})


def make_stream(name: str, tokens: np.ndarray, seed: int = 0, last: int = CHUNK) -> FrozenChunks:
    """A stream over ``tokens`` whose hidden state at i depends on tokens ≤ i only, as a causal model's does.

    ``last`` is the number of real tokens of the last chunk.  States at the split layer are the final ones.
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
    logits = hidden @ np.asarray(UNEMBEDDING).T
    total = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    chosen = np.take_along_axis(logits, np.minimum(targets, VOCABULARY - 1)[..., None], axis=-1)[..., 0]
    nll = np.where(mask, total - chosen, 0.0).astype(np.float32)
    features = hidden.reshape(count, -1)[:, 7::29][:, : len(FROZEN)].copy()
    features[:, frozen_index("entropy_mean")] = (entropy * mask).sum(-1) / mask.sum(-1)
    return FrozenChunks(
        stream_id=name,
        hidden=hidden,
        targets=targets,
        mask=mask,
        entropy=entropy,
        nll_frozen=nll,
        loss_frozen=nll.astype(np.float64).sum(-1) / mask.sum(-1),
        n_bytes=np.full(count, 3 * CHUNK),
        flops=2 * ones,
        seconds=2 * ones,
        suffix_flops=ones,
        suffix_seconds=ones,
        projection_flops=ones,
        projection_seconds=ones,
        feature_flops=0.5 * ones,
        feature_seconds=0.5 * ones,
        features=features,
        split=hidden,
    )


def random_tokens(seed: int, chunks: int) -> np.ndarray:
    """Uniformly random tokens."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, size=chunks * CHUNK + 1)


def fresh(kind: str, seed: int = 0) -> FastWeights:
    """An untrained module."""
    return build(kind, WIDTH, TINY, seed, SHAPE)


def awake(kind: str, seed: int = 0) -> FastWeights:
    """A module whose zero matrix is random instead, as after training, so that every path shows."""
    module = fresh(kind, seed)
    if kind == "memory":
        return module
    name = {"ttt": "output", "lora": "up", "suffix": "delta"}[kind]
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
