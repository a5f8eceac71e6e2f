"""A stream whose chunks the backbone reads one by one, when the loop asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ponderttt.frozen.chunks import FROM_CORPUS, FrozenChunks
from ponderttt.frozen.reading import StreamReader


class _Column(Sequence[Any]):
    """A field of N chunks; each value is computed when it is indexed."""

    def __init__(self, length: int, at: Callable[[int], Any]) -> None:
        self._length, self._at = length, at

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        return self._at(index)


def live_stream(reader: StreamReader) -> FrozenChunks:
    """Return a stream whose chunks are read when a field of theirs is indexed.

    The loop asks for the fields of one chunk in turn and never goes back, so only the last chunk is kept.
    """
    stream = reader.stream
    last: tuple[int, FrozenChunks] | None = None

    def before(t: int) -> Float[np.ndarray, "T D"] | None:
        if t == 0:
            return None
        if last is not None and last[0] == t - 1:
            return last[1].hidden
        return reader.states(t - 1).hidden

    def chunk(t: int) -> FrozenChunks:
        nonlocal last
        if last is None or last[0] != t:
            last = (t, reader.chunk(t, before(t)))
        return last[1]

    def column(name: str) -> Any:
        return _Column(len(stream.input_ids), lambda t: getattr(chunk(t), name))

    return FrozenChunks(
        stream_id=stream.stream_id,
        targets=stream.targets,
        mask=np.asarray(stream.mask, bool),
        n_bytes=stream.n_bytes,
        **{name: column(name) for name in FrozenChunks._fields if name not in FROM_CORPUS},
    )
