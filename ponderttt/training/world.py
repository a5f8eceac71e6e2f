"""Training streams as a world that answers what any sequence of actions leads to, each question once.

The world is deterministic: what chunk t loses depends on the updates before it alone.  So an answer is kept, and a
policy that comes back to a sequence of actions pays for scoring and adapting once; actions that nobody took are never
computed.  Answers come from the programs of the loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ponderttt.actions import Action
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.loop.page import Group, Page
from ponderttt.loop.programs import ModulePrograms

#: Actions that are another one twice on the same chunk, where a module's steps compose.
_HALF = {Action.UPDATE_2: Action.UPDATE_1, Action.UPDATE_4: Action.UPDATE_2}

#: Updates of a stream so far: (chunk, action) of each that was not SKIP.  Equal updates leave equal fast weights.
Updates = tuple[tuple[int, int], ...]


def streams_within(streams: Sequence[FrozenChunks], vocabulary: int, logits_bytes: float) -> int:
    """How many streams, from the first one on, have frozen float32 logits of so many bytes together."""
    sizes = [4 * vocabulary * int(np.prod(np.shape(stream.targets))) for stream in streams]
    return int(np.searchsorted(np.cumsum(sizes), logits_bytes, side="right"))


class Read(NamedTuple):
    """What reading a chunk shows before anything is learned from it."""

    #: Committed loss, nats per token.
    loss: float
    reconstruction: float


class World:
    """Streams under one trained module.

    Args:
        programs: of the module.
        streams: to act on.
        unembedding: the frozen vocabulary projection [V, D], as the model keeps it.
        suffix: frozen blocks after the split layer, for modules that read from there.
        memory_bytes: fast weights that are kept at hand; others are computed again from the updates that led to them.
        logits_bytes: frozen logits that are kept at hand, of the first streams; others are projected again.
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
        self._held: OrderedDict[tuple[int, Updates], Any] = OrderedDict()
        #: Seconds spent in the programs of the module and in the projection, compilation left out.
        self.seconds = 0.0

    def __len__(self) -> int:
        """Number of answers that are known."""
        return len(self._reads)

    def length(self, stream: int) -> int:
        """Chunks of a stream."""
        return len(self.streams[stream].hidden)

    def loss_frozen(self, stream: int, t: int) -> float:
        """Of the frozen backbone on chunk t, nats per token."""
        return float(self.streams[stream].loss_frozen[t])

    def read(self, stream: int, t: int, updates: Updates) -> Read:
        """Score chunk t after some updates on chunks before it."""
        key = (stream, t, updates)
        if key not in self._reads:
            fast = self._fast(stream, updates)
            page, programs = self._open(stream, t), self.programs
            scored = programs.score(programs.slow, fast, page.chunk(programs), self._readout(page))
            rebuilt = page.reconstruction(programs, fast)
            self.seconds += scored.seconds + rebuilt.seconds
            tokens = float(self.streams[stream].mask[t].sum())
            loss = float(np.asarray(scored.value, np.float64).sum()) / tokens
            self._reads[key] = Read(loss, float(np.asarray(rebuilt.value)[0]))
        return self._reads[key]

    def learn(self, stream: int, t: int, updates: Updates, action: Action) -> Updates:
        """The updates after an action on chunk t.

        Fast weights are made at once, while the chunk is open, unless the next chunk's answer is known already.
        """
        if not action.steps:
            return updates
        after = (*updates, (t, int(action)))
        if t + 1 < self.length(stream) and (stream, t + 1, after) not in self._reads:
            self._fast(stream, after)
        return after

    def _fast(self, stream: int, updates: Updates) -> Any:
        if not updates:
            return self._fresh
        key = (stream, updates)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        t, action = updates[-1][0], Action(updates[-1][1])
        if self.programs.steps_compose and action in _HALF:
            # What UPDATE_1 led to is at hand, or will be asked for.
            action = _HALF[action]
            before = self._fast(stream, (*updates[:-1], (t, int(action))))
        else:
            before = self._fast(stream, updates[:-1])
        page, programs = self._open(stream, t), self.programs
        program = programs.adapt[action]
        ran = program(programs.slow, before, page.chunk(programs), self._readout(page))
        self.seconds += ran.seconds
        self._held[key] = ran.value.fast
        while len(self._held) > self._capacity:
            self._held.popitem(last=False)
        return ran.value.fast

    def _readout(self, page: Page) -> Any:
        known = page.projection_seconds
        readout = page.readout(self.programs)
        self.seconds += page.projection_seconds - known
        return readout

    def _open(self, stream: int, t: int) -> Page:
        """The page under way; of those before it the ones that there is room for are held: logits are the largest thing here."""
        if self._page is None or self._page[0] != stream or self._page[1].t != t:
            if self._page is not None and self._page[0] >= self._keeps_pages:
                group, page = self._groups[self._page[0]], self._page[1]
                group.close(page.t)
            self._page = (stream, self._groups[stream].page(t))
        return self._page[1]
