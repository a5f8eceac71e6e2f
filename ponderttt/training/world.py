"""Training streams as a deterministic environment that computes the result of a sequence of actions once.

The loss of chunk t depends only on the updates before it.  So results are cached: a policy that repeats a sequence of
actions pays for scoring and adapting once, and actions that are never taken are never computed.  The programs are
those of the loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ponderttt.actions import Action
from ponderttt.fast_weights.base import Scored
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.loop.page import Group, Page
from ponderttt.loop.programs import ModulePrograms

#: Action → the action that gives it when made twice on the same chunk, if the adapter's steps compose.
_HALF = {Action.UPDATE_2: Action.UPDATE_1, Action.UPDATE_4: Action.UPDATE_2}

#: Updates of a stream so far: (chunk, action) of each that was not SKIP.  Equal updates give equal fast weights.
Updates = tuple[tuple[int, int], ...]


def streams_within(streams: Sequence[FrozenChunks], vocabulary: int, logits_bytes: float) -> int:
    """Return how many of the first streams have frozen float32 logits that fit in ``logits_bytes``."""
    sizes = [4 * vocabulary * int(np.prod(np.shape(stream.targets))) for stream in streams]
    return int(np.searchsorted(np.cumsum(sizes), logits_bytes, side="right"))


class Read(NamedTuple):
    """Result of scoring a chunk before anything is learned from it."""

    #: Committed loss, nats per token.
    loss: float
    reconstruction: float


class World:
    """Streams with one trained adapter.

    Args:
        programs: programs of the adapter.
        streams: streams to act on.
        unembedding: the frozen vocabulary projection [V, D], as the model keeps it.
        suffix: frozen blocks after the split layer, for adapters that read there.
        memory_bytes: size of the cache of fast weights; others are recomputed from their updates.
        logits_bytes: size of the cache of frozen logits, for the first streams; others are projected again.
    """

    def __init__(
        self,
        programs: ModulePrograms,
        streams: Sequence[FrozenChunks],
        unembedding: Any,
        suffix: Any = None,
        memory_bytes: int = 1 << 30,
        logits_bytes: float = 0,
    ) -> None:
        self.programs, self.streams = programs, streams
        self._groups = [Group([stream], unembedding, suffix) for stream in streams]
        self._keeps_pages = streams_within(streams, unembedding.shape[0], logits_bytes)
        self._page: tuple[int, Page] | None = None
        self._reads: dict[tuple[int, int, Updates], Read] = {}
        fresh = programs.reset(programs.slow).value
        self._fresh = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], fresh)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self._fresh))
        self._capacity = max(16, memory_bytes // max(1, size))
        self._held: OrderedDict[tuple[int, int, Updates], Any] = OrderedDict()
        #: Seconds spent in the programs of the adapter and in the projection, without compilation.
        self.seconds = 0.0

    def __len__(self) -> int:
        """Number of cached results."""
        return len(self._reads)

    def length(self, stream: int) -> int:
        """Return the number of chunks of a stream."""
        return len(self.streams[stream].hidden)

    def loss_frozen(self, stream: int, t: int) -> float:
        """Return the loss of the frozen backbone on chunk t, nats per token."""
        return float(self.streams[stream].loss_frozen[t])

    def read(self, stream: int, t: int, updates: Updates) -> Read:
        """Score chunk t after ``updates`` on chunks before it."""
        key = (stream, t, updates)
        if key not in self._reads:
            fast = self.programs.trimmed(self._fast(stream, t, updates), t)
            scored = self._scored(stream, t, fast)
            rebuilt = self._open(stream, t).reconstruction(self.programs, fast)
            self.seconds += rebuilt.seconds
            tokens = float(self.streams[stream].mask[t].sum())
            loss = float(np.asarray(scored.nll, np.float64).sum()) / tokens
            self._reads[key] = Read(loss, float(np.asarray(rebuilt.value)[0]))
        return self._reads[key]

    def learn(self, stream: int, t: int, updates: Updates, action: Action) -> Updates:
        """Return the updates after an action on chunk t.

        Computes the fast weights at once, while the chunk is open, unless the next chunk's result is already cached.
        """
        if not action.steps:
            return updates
        after = (*updates, (t, int(action)))
        if t + 1 < self.length(stream) and (stream, t + 1, after) not in self._reads:
            self._fast(stream, t + 1, after)
        return after

    def _fast(self, stream: int, t: int, updates: Updates) -> Any:
        """Return the fast weights that read chunk t after ``updates``."""
        if not self.programs.follows:
            # Chunks without an update change nothing.
            t = updates[-1][0] + 1 if updates else 0
        if not t:
            return self._fresh
        key = (stream, t, updates)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        found = (
            self._follow(stream, t - 1, updates) if self.programs.follows else self._learn(stream, updates)
        )
        self._held[key] = found
        while len(self._held) > self._capacity:
            self._held.popitem(last=False)
        return found

    def _learn(self, stream: int, updates: Updates) -> Any:
        """Make the last one of ``updates``."""
        t, action = updates[-1][0], Action(updates[-1][1])
        if self.programs.steps_compose and action in _HALF:
            # The result of half the steps is cached, or will be needed.
            action = _HALF[action]
            before = self._fast(stream, t + 1, (*updates[:-1], (t, int(action))))
        else:
            before = self._fast(stream, t, updates[:-1])
        return self._adapted(stream, t, before, action)

    def _follow(self, stream: int, t: int, updates: Updates) -> Any:
        """Return the fast weights after chunk t, for a module whose fast weights follow each chunk."""
        updated = bool(updates) and updates[-1][0] == t
        before = self._fast(stream, t, updates[:-1] if updated else updates)
        seen = self.programs.trimmed(before, t)
        fresh = self._scored(stream, t, seen).fresh
        after = self._adapted(stream, t, seen, Action(updates[-1][1])) if updated else seen
        return self.programs.follow(before, after, fresh)

    def _adapted(self, stream: int, t: int, fast: Any, action: Action) -> Any:
        page, programs = self._open(stream, t), self.programs
        ran = programs.adapt[action](programs.slow, fast, page.chunk(programs), self._readout(page))
        self.seconds += ran.seconds
        return ran.value.fast

    def _scored(self, stream: int, t: int, fast: Any) -> Scored:
        page, programs = self._open(stream, t), self.programs
        ran = programs.score(programs.slow, fast, page.chunk(programs), self._readout(page))
        self.seconds += ran.seconds
        scored: Scored = ran.value
        return scored

    def _readout(self, page: Page) -> Any:
        known = page.projection_seconds
        readout = page.readout(self.programs)
        self.seconds += page.projection_seconds - known
        return readout

    def _open(self, stream: int, t: int) -> Page:
        """Return the page of chunk t; keep earlier pages if there is room, since logits are the largest thing here."""
        if self._page is None or self._page[0] != stream or self._page[1].t != t:
            if self._page is not None and self._page[0] >= self._keeps_pages:
                group, page = self._groups[self._page[0]], self._page[1]
                group.close(page.t)
            self._page = (stream, self._groups[stream].page(t))
        return self._page[1]
