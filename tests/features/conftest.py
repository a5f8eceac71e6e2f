"""Real code read by a tiny random model: what the frozen pass would have of its chunks, and a made-up arm on top."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from ponderttt.actions import Action
from ponderttt.features import history as told
from ponderttt.features.frozen import ChunkSignals, frozen_features
from ponderttt.models.backbone import random_backbone
from ponderttt.models.losses import frozen_losses, gradient_sketch
from tiny_llama import tiny_llama

#: Every byte is a token.
VOCABULARY, CHUNK, BUDGET = 256, 160, 3.0
MODEL = tiny_llama(vocab_size=VOCABULARY)

Reader = Callable[[bytes], Iterator[ChunkSignals]]
Observer = Callable[[list[ChunkSignals], int], np.ndarray]


@pytest.fixture(scope="session")
def read() -> Reader:
    """Code → the signals of its chunks, the last of which is padded."""
    backbone = random_backbone(MODEL, jax.random.key(0))
    # A random model is nearly uniform in all that it does, which hides how features differ.  Larger projections give it
    # opinions: heads attend to little, and some tokens are likely.
    params = jax.tree.map_with_path(
        lambda path, leaf: 4 * leaf if "query_key_value" in jax.tree_util.keystr(path) else leaf,
        backbone.params,
    )
    unembedding = backbone.unembedding / (2 * backbone.unembedding.std())
    sketch = gradient_sketch(unembedding)

    @partial(jax.jit, static_argnums=0)
    def run(graph: object, params: object, tokens: jax.Array, targets: jax.Array) -> tuple:
        model, real = nnx.merge(graph, params), tokens < VOCABULARY
        hidden, attention = model.observed_suffix(model.prefix(tokens), real, CHUNK)
        losses = frozen_losses(hidden[0], unembedding, sketch, targets)
        return hidden[0], losses, [statistic[:, 0] for statistic in attention]

    def signals(code: bytes) -> Iterator[ChunkSignals]:
        length = -(-(len(code) - 1) // CHUNK) * CHUNK
        ids = np.full(length + 1, VOCABULARY, np.int32)
        ids[: len(code)] = np.frombuffer(code, np.uint8)
        previous: ChunkSignals | None = None
        for begin in range(0, length, CHUNK):
            targets = ids[begin + 1 : begin + CHUNK + 1]
            mask = targets < VOCABULARY
            # As chunking does it: what is not scored is not read.
            tokens = np.where(mask, ids[begin : begin + CHUNK], VOCABULARY)
            hidden, losses, (entropy, distance, sparsity) = jax.tree.map(
                np.asarray, run(backbone.graph, params, tokens[None], targets)
            )
            text = code[begin : begin + int(mask.sum())]
            previous = ChunkSignals(
                hidden,
                mask,
                losses.nll,
                losses.entropy,
                losses.confidence,
                losses.gradient_sketch,
                entropy,
                distance,
                sparsity,
                text.decode(errors="replace"),
                "Python",
                # A separator of files, where tests need one, is a zero byte.
                text.count(b"\0") + (begin == 0),
                None if previous is None else previous.hidden,
                None if previous is None else previous.mask,
            )
            yield previous

    return signals


@pytest.fixture(scope="session")
def observe() -> Observer:
    """A stream's chunks and a seed → all its features under an arm that acts and gains at random."""
    return _observe


def _observe(chunks: list[ChunkSignals], seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    history, spent, rows = told.start(), 0.0, []
    for t, chunk in enumerate(chunks):
        frozen = float(chunk.nll[chunk.mask].mean())
        scored = {
            "loss": frozen - 0.1 * draw.random() * t,
            "loss_frozen": frozen,
            "reconstruction": 0.5 + 0.1 * draw.random(),
        }
        rows.append(
            told.observe(
                frozen_features(chunk),
                history,
                **scored,
                chunk_index=t,
                chunks_left=len(chunks) - t - 1,
                budget_left=BUDGET * len(chunks) - spent,
                budget=BUDGET,
            )
        )
        action = Action(int(draw.integers(4)))
        spent += action.nominal_cost
        history = told.remember(history, **scored, action=action, cost=action.nominal_cost)
    return np.stack(rows)


@pytest.fixture(scope="session")
def real_streams(read: Reader) -> list[list[ChunkSignals]]:
    """Packages of the standard library, a few files each; streams differ in length and end anywhere in a chunk."""
    library = Path(os.__file__).parent
    streams = []
    for n, package in enumerate(("json", "email", "logging", "html", "xml/sax", "wsgiref")):
        files = [path.read_bytes()[: 400 + 150 * n] for path in sorted((library / package).glob("*.py"))[:5]]
        streams.append(list(read(b"\0".join(files)[: 1290 + 170 * n - 37 * n * n])))
    return streams
