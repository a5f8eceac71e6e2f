"""All sequences of a memory at once.

While its ring drops nothing, a memory is the sum of what each chunk stored, and what a chunk stores depends on its own
action alone.  So the queries of a chunk meet every earlier chunk once for each action, and the loss after any past
follows from such parts without another matrix product.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.fast_weights.base import Chunk
from ponderttt.fast_weights.memory import Memory, MemoryPart
from ponderttt.records.sequences import Past

#: Pasts that are scored together; bounds the memory.
_BLOCK = 256


class MemorySums:
    """The compiled programs of one memory."""

    def __init__(self, module: Memory) -> None:
        graph, self._slow = nnx.split(module)
        self._capacity = module.config.capacity

        def parts(slow: Any, source: Chunk, chunk: Chunk) -> MemoryPart:
            memory = nnx.merge(graph, slow)
            found = [memory.part(source, action.steps, chunk) for action in Action]
            return jax.tree.map(lambda *actions: jnp.stack(actions), *found)

        def score(slow: Any, parts: MemoryPart, chunk: Chunk, pasts: Any) -> Float[Any, "K T"]:
            memory = nnx.merge(graph, slow)
            chosen = lambda past: jax.tree.map(lambda part: part[jnp.arange(len(past)), past], parts)  # noqa: E731
            return jax.vmap(lambda past: memory.score_parts(chosen(past), chunk))(pasts)

        self._parts, self._score = jax.jit(parts), jax.jit(score)

    def stored(self, chunks: list[Chunk], past: Past) -> int:
        """Return the number of pairs that a past stores."""
        counts = [int(np.sum(chunk.mask)) for chunk in chunks]
        return sum(-(-real * Action(a).steps // 4) for real, a in zip(counts, past, strict=False))

    def level(self, chunks: list[Chunk], t: int) -> dict[Past, float]:
        """Return the total loss of chunk t after every past that drops no pair, nats.

        Args:
            chunks: the chunks of one stream.
            t: 1 or later.
        """
        tables = [self._parts(self._slow, chunks[s], chunks[t]) for s in range(t)]
        parts = jax.tree.map(lambda *sources: jnp.stack(sources), *tables)
        real = np.array([int(np.sum(chunk.mask)) for chunk in chunks[:t]])
        pasts = np.array(list(itertools.product(range(len(Action)), repeat=t)), np.int8)
        steps = np.array([action.steps for action in Action])
        pairs = np.minimum(-(-real * steps[pasts] // 4), self._capacity).sum(axis=1)
        pasts = pasts[pairs <= self._capacity]
        found: dict[Past, float] = {}
        for begin in range(0, len(pasts), _BLOCK):
            block = pasts[begin : begin + _BLOCK]
            # Padded, so that a chunk has one shape.
            padded = np.resize(block, (min(_BLOCK, len(pasts)), t))
            nll = np.asarray(self._score(self._slow, parts, chunks[t], padded), np.float64)
            found |= zip(map(tuple, block.tolist()), nll.sum(axis=1).tolist(), strict=False)
        return found
