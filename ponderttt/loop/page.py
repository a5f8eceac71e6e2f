"""Chunk t of a group of streams, with the computations that arms share."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from ponderttt.costs import Cost, Measured
from ponderttt.fast_weights.base import Chunk, Fast, Readout, as_chunk
from ponderttt.features.history import reconstruction_error
from ponderttt.features.similarity import similarity_flops
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.loop.controls import Lesson, shuffle_chunk
from ponderttt.loop.programs import ModulePrograms, project

T = TypeVar("T")


class Page:
    """The chunk t of the B streams that have one."""

    def __init__(self, group: Group, t: int) -> None:
        self.t = t
        #: Positions in the group of the streams with a chunk t.
        self.active = [b for b, stream in enumerate(group.streams) if t < len(stream.hidden)]
        self.streams = [group.streams[b] for b in self.active]
        self._group = group
        self._chunk = _stack(self.streams, [t] * len(self.streams))
        self._projected: Measured | None = None
        self._shared: dict[Hashable, Any] = {}

    @property
    def size(self) -> int:
        """B, the number of streams."""
        return len(self.streams)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the result of ``compute``, which is called only the first time for this key."""
        if key not in self._shared:
            self._shared[key] = compute()
        found: T = self._shared[key]
        return found

    def chunk(self, programs: ModulePrograms) -> Chunk:
        """Return the chunk for a module: with states at the split layer only if the module reads them."""
        return _shown(self._chunk, programs)

    def readout(self, programs: ModulePrograms) -> Readout:
        """Return the frozen matrices and logits that a module reads the chunk with."""
        logits = self._projection().value if programs.reads == "logits" else None
        return programs.readout(self._group.unembedding, logits, self._group.suffix)

    def reconstruction(self, programs: ModulePrograms, fast: Fast) -> Measured:
        """Reconstruction error of each stream's chunk, see :func:`ponderttt.features.history.reconstruction_error`."""
        own = Measured(None, 0.0, 0.0)
        if programs.reconstruct is not None:
            own = programs.reconstruct(programs.slow, fast, self.chunk(programs))
        rows = np.stack([stream.features[self.t] for stream in self.streams])
        return own._replace(value=reconstruction_error(own.value, rows))

    def lesson(self, programs: ModulePrograms, lesson: Lesson, seed: int) -> tuple[Chunk, Readout]:
        """Return what an update learns from."""
        if lesson in ("chunk", "sign_flipped"):
            return self.chunk(programs), self.readout(programs)
        return self.once((id(programs), lesson, seed), lambda: self._wrong_lesson(programs, lesson, seed))

    def frozen_cost(self, programs: ModulePrograms, observes: str | None, i: int) -> Cost:
        """Return what an arm is charged for the backbone's work on stream ``i``.

        The shared projection is charged in full to every arm, since each would need it alone.  On top comes what only the
        policy looks at: the frozen blocks and losses of a module that reads from the split layer, the entropies of one that
        reads logits, the comparison with the preceding chunk, and features.
        """
        stream, t = self.streams[i], self.t
        cost, losses, features, suffix = (
            Cost(float(getattr(stream, f"{part}flops")[t]), float(getattr(stream, f"{part}seconds")[t]))
            for part in ("", "projection_", "feature_", "suffix_")
        )
        sees_losses = observes in ("entropy", "features")
        if programs.reads == "logits":
            shared = self._projection().cost
            cost = cost.plus(shared, 1 / self.size)
            if sees_losses:
                # The logits are there; the rest of the losses is a sweep over them.
                cost = cost.plus(losses, _rest(losses.flops, shared.flops / self.size))
        elif programs.reads == "split":
            cost = cost.plus(suffix, 0.0 if observes else -1.0).plus(losses, float(sees_losses))
        else:
            cost = cost.plus(losses)
        if observes == "reconstruction" and programs.reconstruct is None and t > 0:
            # The error of predicting the chunk from the one before it is one of the features.
            compared = similarity_flops(*stream.hidden[t].shape)
            cost = cost.plus(features, 1 - _rest(features.flops, compared))
        return cost.plus(features) if observes == "features" else cost

    @property
    def projection_seconds(self) -> float:
        """Seconds of the shared projection; 0 if it was not computed."""
        return 0.0 if self._projected is None else self._projected.seconds

    def release(self) -> None:
        """Free the logits; they are recomputed if needed."""
        self._projected = None

    def _projection(self) -> Measured:
        if self._projected is None:
            self._projected = project(self._chunk, self._group.unembedding)
        return self._projected

    def _wrong_lesson(self, programs: ModulePrograms, lesson: Lesson, seed: int) -> tuple[Chunk, Readout]:
        if lesson == "shuffled":
            seeds = [zlib.crc32(f"{seed}/{s.stream_id}/{self.t}".encode()) for s in self.streams]
            chunk, rows = shuffle_chunk(self.chunk(programs), seeds)
            readout = self.readout(programs)
            if readout.logits is not None:
                moved = jnp.take_along_axis(readout.logits, jnp.asarray(rows)[:, :, None], axis=1)
                readout = readout._replace(logits=moved)
            return chunk, readout
        donors = [self._group.donors[b] for b in self.active]
        whole = _stack(donors, [self.t % len(donor.hidden) for donor in donors])
        logits = project(whole, self._group.unembedding).value if programs.reads == "logits" else None
        return _shown(whole, programs), programs.readout(self._group.unembedding, logits, self._group.suffix)


@dataclass
class Group:
    """Streams that advance together, and the frozen matrices that they are read with.

    Attributes:
        streams: streams, maybe of different numbers of chunks.
        unembedding: the frozen vocabulary projection [V, D], as the model keeps it.
        suffix: frozen weights of the blocks after the split layer, for modules that read from there.
        donors: for each stream another one, which the control ``other_stream`` learns from.
    """

    streams: Sequence[FrozenChunks]
    unembedding: Any
    suffix: Any = None
    donors: Sequence[FrozenChunks] = ()
    _pages: dict[int, Page] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of chunks of the longest stream."""
        return max(len(stream.hidden) for stream in self.streams)

    def page(self, t: int) -> Page:
        """Return page t, with its shared results so far."""
        if t not in self._pages:
            self._pages[t] = Page(self, t)
        return self._pages[t]

    def close(self, t: int) -> None:
        """Forget page t."""
        self._pages.pop(t, None)


def _rest(whole: float, part: float) -> float:
    """Return the share of FLOPs that is left after a part of them; 0 if the part is not smaller."""
    return 1 - part / whole if part < whole else 0.0


def _stack(streams: Sequence[FrozenChunks], index: Sequence[int]) -> Chunk:
    names = [name for name in Chunk._fields if name != "split" or streams[0].split is not None]
    return as_chunk(
        {name: np.stack([getattr(s, name)[t] for s, t in zip(streams, index, strict=True)]) for name in names}
    )


def _shown(chunk: Chunk, programs: ModulePrograms) -> Chunk:
    return chunk if programs.reads == "split" else chunk._replace(split=None)
