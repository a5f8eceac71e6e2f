"""Compiled programs that read one chunk after a cache, with their costs."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from ponderttt.costs import Cost, Program, count_flops
from ponderttt.models.streaming import Ring, prefix_after, store, suffix_after

if TYPE_CHECKING:
    from ponderttt.models.backbone import Backbone
    from ponderttt.models.past_attention import Past
    from ponderttt.models.streaming import Fresh


class AfterCache:
    """The blocks of a backbone on either side of the split layer, after a cache of one shape.

    Attributes:
        prefix: ``(params, tokens, past, index) → split, past, cost``.
        suffix: ``(params, (split, real), past, index) → (hidden, attention), past, cost``.
    """

    def __init__(self, backbone: Backbone, ring: Ring, *, rehearse: bool) -> None:
        graph = backbone.graph

        def prefix(params: Any, tokens: Any, past: Past, index: Any) -> Any:
            return prefix_after(nnx.merge(graph, params), tokens, past, index, ring)

        def suffix(params: Any, split: tuple[Any, Any], past: Past, index: Any) -> Any:
            hidden, real = split
            hidden, attention, fresh = suffix_after(nnx.merge(graph, params), hidden, real, past, index, ring)
            return (hidden, attention), fresh

        self.prefix, self.suffix = (
            _Step(Program(read, rehearse=rehearse), ring) for read in (prefix, suffix)
        )


class _Step:
    """A program that reads a chunk and writes its keys and values into the cache."""

    def __init__(self, read: Program, ring: Ring) -> None:
        self._ring, self._read = ring, read
        self._stored: set[int] = set()
        self._flops: dict[Any, float] = {}

    def __call__(self, params: Any, inputs: Any, past: Past, index: int) -> tuple[Any, Past, Cost]:
        """Read a chunk and write it into the cache, in place."""
        value, fresh, cost = self.read(params, inputs, past, index)
        key = _tokens(inputs)
        if key not in self._stored:
            # Compiled before it is timed.
            store.lower(self._ring, past, fresh, index).compile()
            self._stored.add(key)
        begin = time.perf_counter()
        past = jax.block_until_ready(store(self._ring, past, fresh, index))
        return value, past, cost._replace(seconds=cost.seconds + time.perf_counter() - begin)

    def read(self, params: Any, inputs: Any, past: Past, index: int) -> tuple[Any, Fresh, Cost]:
        """Read a chunk; return its keys and values too."""
        (value, fresh), seconds = self._read.timed(params, inputs, past, index)
        return value, fresh, Cost(self._counted(params, inputs, past, index), seconds)

    def _counted(self, params: Any, inputs: Any, past: Past, index: int) -> float:
        """Count the FLOPs of reading a chunk: a loop over cached chunks, each of which adds the same."""

        def count(filled: int) -> float:
            key = (_tokens(inputs), filled)
            if key not in self._flops:
                # An integer gives the loop a known length.
                known = partial(self._read.function, index=filled)
                self._flops[key] = float(count_flops(known, params, inputs, past))
            return self._flops[key]

        filled = self._ring.filled(index)
        return count(0) if filled == 0 else count(1) + (int(filled) - 1) * (count(2) - count(1))


def _tokens(inputs: Any) -> int:
    return int(jax.tree.leaves(inputs)[0].shape[0])
