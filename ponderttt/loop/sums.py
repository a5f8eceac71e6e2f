"""All sequences of a memory at once.

While its ring drops nothing, a memory is the sum of what each chunk stored, and what a chunk stores depends on its own
action alone.  So the queries of a chunk meet every earlier chunk once for each action, and the loss after any past
follows from sums of such parts without another matrix product.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ponderttt.actions import Action
from ponderttt.fast_weights.base import Chunk
from ponderttt.fast_weights.memory import Memory, MemoryPart
from ponderttt.records.sequences import Past


class MemorySums:
    """The compiled programs of one memory."""

    def __init__(self, module: Memory) -> None:
        graph, self._slow = nnx.split(module)
        self._capacity = module.config.capacity

        def by_action(slow: Any, source: Chunk, chunk: Chunk) -> MemoryPart:
            """Return what the chunk finds of an earlier one after each action on that, [A, T]."""
            memory = nnx.merge(graph, slow)
            parts = [memory.part(source, action.steps, chunk) for action in Action]
            return jax.tree.map(lambda *actions: jnp.stack(actions), *parts)

        def grown(pasts: MemoryPart, part: MemoryPart) -> MemoryPart:
            """Let every one of K pasts go on with each action, [K, T] → [K · A, T]."""
            both = jax.tree.map(lambda past: past[:, None], pasts).plus(jax.tree.map(lambda p: p[None], part))
            return jax.tree.map(lambda found: found.reshape(-1, found.shape[-1]), both)

        def score(slow: Any, pasts: MemoryPart, chunk: Chunk) -> Float[Array, "K T"]:
            memory = nnx.merge(graph, slow)
            return jax.vmap(lambda part: memory.score_part(part, chunk))(pasts)

        self._by_action, self._grown, self._score = jax.jit(by_action), jax.jit(grown), jax.jit(score)

    def level(self, chunks: list[Chunk], t: int) -> dict[Past, float]:
        """Return the total loss of chunk t after every past that drops no pair, nats.

        Args:
            chunks: the chunks of one stream.
            t: 1 or later.
        """
        pasts = self._by_action(self._slow, chunks[0], chunks[t])
        for s in range(1, t):
            pasts = self._grown(pasts, self._by_action(self._slow, chunks[s], chunks[t]))
        nll = np.asarray(self._score(self._slow, pasts, chunks[t]))
        # In the order in which the pasts have grown.
        actions = np.array(list(itertools.product(range(len(Action)), repeat=t)), np.int8)
        real = np.array([int(np.sum(chunk.mask)) for chunk in chunks[:t]])
        steps = np.array([action.steps for action in Action])
        pairs = np.minimum(-(-real * steps[actions] // 4), self._capacity).sum(axis=1)
        whole = pairs <= self._capacity
        nats = nll[whole].sum(axis=1, dtype=np.float64)
        return dict(zip(map(tuple, actions[whole].tolist()), nats.tolist(), strict=True))
