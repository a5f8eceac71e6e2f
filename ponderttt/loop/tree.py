"""The losses of every sequence of actions on one stream.

Sequences share their common start, so they form a tree: a node is the actions so far, and its fast weights are computed
once.  Programs are those of the loop, one stream at a time, so a node's loss is what the loop itself records after these
actions.  A memory is the sum of its parts, so all of its sequences are computed together (:mod:`ponderttt.loop.sums`);
there, rounding differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from ponderttt.actions import Action
from ponderttt.costs import Measured
from ponderttt.fast_weights.base import Fast, FastWeights
from ponderttt.fast_weights.memory import Memory
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.loop.arm import Arm, initial_state
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.stream import adapt, follow, score
from ponderttt.loop.sums import MemorySums
from ponderttt.policies.rules import Fixed
from ponderttt.policies.sequences import Allowance
from ponderttt.records.sequences import Past, StreamLosses

#: Nats by which a wider beam must find a better sequence to be worth widening again.
_BETTER = 1e-9


@dataclass(frozen=True)
class Enumerator:
    """Enumerates the sequences of streams with one trained module.

    Args:
        module: fast weights with trained slow weights.
        unembedding: the frozen vocabulary projection [V, D], as the model keeps it.
        suffix: frozen weights of the blocks after the split layer, for modules that read from there.
        max_nodes: largest number of chunks to score per stream and budget; a larger tree is searched with a beam.
        beam_width: width of the first beam.
    """

    module: FastWeights
    unembedding: Any
    suffix: Any = None
    max_nodes: int = 30_000
    beam_width: int = 4
    programs: ModulePrograms = field(init=False)
    _arm: Arm = field(init=False)
    _sums: MemorySums | None = field(init=False)

    def __post_init__(self) -> None:
        programs = ModulePrograms(self.module)
        object.__setattr__(self, "programs", programs)
        object.__setattr__(self, "_arm", Arm("tree", programs, Fixed(Action.SKIP), "score_first", 0))
        object.__setattr__(
            self, "_sums", MemorySums(self.module) if isinstance(self.module, Memory) else None
        )

    def losses(self, stream: FrozenChunks, allowances: Sequence[Allowance]) -> StreamLosses:
        """Return the losses of all sequences of a memory, or else of those that an allowance allows.

        Args:
            stream: the stream.
            allowances: what the budgets give it.
        """
        group = Group([stream], self.unembedding, self.suffix)
        length = len(stream.hidden)
        if self._sums is not None and sum(len(Action) ** t for t in range(length)) <= self.max_nodes:
            return self._finish(stream, self._all(group, length), None)
        levels: list[dict[Past, float]] = [{} for _ in range(length)]
        widest: int | None = None
        for allowance in allowances:
            if allowance.nodes <= self.max_nodes:
                found = self._grow(group, allowance, lambda nodes: nodes)
            else:
                found, width = self._widened(group, allowance)
                widest = max(width, widest or 0)
            for level, more in zip(levels, found, strict=True):
                level.update(more)
        return self._finish(stream, levels, widest)

    def _finish(
        self, stream: FrozenChunks, levels: Sequence[dict[Past, float]], width: int | None
    ) -> StreamLosses:
        """Return losses per token from total losses."""
        tokens = np.array([int(mask.sum()) for mask in stream.mask])
        means = tuple(
            {past: nats / int(count) for past, nats in level.items()}
            for level, count in zip(levels, tokens, strict=True)
        )
        return StreamLosses(stream.stream_id, means, tokens, width)

    def _all(self, group: Group, length: int) -> list[dict[Past, float]]:
        assert self._sums is not None
        chunks = [
            jax.tree.map(lambda leaf: leaf[0], group.page(t).chunk(self.programs)) for t in range(length)
        ]
        start = initial_state(self._arm, 1).fast
        levels: list[dict[Past, float]] = [{(): _nats(self._scored(group, 0, start))}]
        levels += [self._sums.level(chunks, t) for t in range(1, length)]
        # Pasts that store more than the ring holds are replayed in the loop's way.
        for t in range(1, length):
            for parent in levels[t - 1]:
                for action in Action:
                    past = (*parent, int(action))
                    if past not in levels[t]:
                        levels[t][past] = _nats(self._scored(group, t, self._replayed(group, start, past)))
        return levels

    def _replayed(self, group: Group, fast: Fast, past: Past) -> Fast:
        for t, action in enumerate(past):
            fast = self._learn(group, t, fast, Action(action), None)
        return fast

    def _widened(self, group: Group, allowance: Allowance) -> tuple[list[dict[Past, float]], int]:
        """Double the beam until it finds no better sequence."""
        tokens = np.ones(allowance.chunks, int)
        levels: list[dict[Past, float]] = [{} for _ in range(allowance.chunks)]
        width, best = self.beam_width, np.inf
        while True:
            found = self._grow(group, allowance, partial(_fittest, allowance=allowance, width=width))
            for level, more in zip(levels, found, strict=True):
                level.update(more)
            reached = StreamLosses(group.streams[0].stream_id, tuple(levels), tokens).nats.min()
            if reached > best - _BETTER:
                return levels, width
            best, width = reached, 2 * width

    def _grow(
        self, group: Group, allowance: Allowance, keep: Callable[[list[_Node]], list[_Node]]
    ) -> list[dict[Past, float]]:
        """Score all allowed pasts, chunk by chunk; ``keep`` chooses those to go on from."""
        nodes = [_Node((), initial_state(self._arm, 1).fast, 0.0)]
        levels: list[dict[Past, float]] = []
        for t in range(allowance.chunks):
            scored = {node.past: self._scored(group, t, node.fast) for node in nodes}
            level = {past: _nats(found) for past, found in scored.items()}
            levels.append(level)
            if t + 1 < allowance.chunks:
                nodes = [replace(node, nats=node.nats + level[node.past]) for node in nodes]
                nodes = [
                    child
                    for node in keep(nodes)
                    for child in self._children(group, t, node, allowance, scored[node.past])
                ]
            group.close(t)
        return levels

    def _children(
        self, group: Group, t: int, node: _Node, allowance: Allowance, scored: Measured
    ) -> list[_Node]:
        allowed = allowance.allowed(allowance.spent(node.past), t)
        return [
            _Node((*node.past, int(action)), self._learn(group, t, node.fast, action, scored), node.nats)
            for action in Action
            if allowed[action]
        ]

    def _scored(self, group: Group, t: int, fast: Fast) -> Measured:
        return score(self.programs, self.programs.trimmed(fast, t), group.page(t))

    def _learn(self, group: Group, t: int, fast: Fast, action: Action, scored: Measured | None) -> Fast:
        """Return the fast weights after an action on chunk t; modules that follow a context need how it was scored."""
        before = after = self.programs.trimmed(fast, t)
        if action.steps:
            after = adapt(self._arm, before, [action], group.page(t)).fast
        return after if scored is None else follow(self.programs, fast, after, scored)


@dataclass(frozen=True)
class _Node:
    """Actions so far, the fast weights after them, and the loss so far in nats."""

    past: Past
    fast: Fast
    nats: float


def _nats(scored: Measured) -> float:
    """Return the total loss of a chunk, nats."""
    return float(np.asarray(scored.value.nll, np.float64).sum())


def _fittest(nodes: Sequence[_Node], allowance: Allowance, width: int) -> list[_Node]:
    """Return the ``width`` nodes of lowest loss among those that have spent the same; losses of others do not compare."""
    kept: dict[int, int] = {}
    fittest = []
    for node in sorted(nodes, key=lambda node: (node.nats, node.past)):
        spent = allowance.spent(node.past)
        kept[spent] = kept.get(spent, 0) + 1
        if kept[spent] <= width:
            fittest.append(node)
    return fittest
