"""A stream whose chunks the backbone reads one by one, as the loop asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ponderttt.frozen.frozen_pass import FrozenChunk, FrozenModel

if TYPE_CHECKING:
    from ponderttt.corpus.chunks import Stream


class _Column(Sequence[Any]):
    """A per-chunk quantity that is computed when it is first asked for."""

    def __init__(self, length: int, at: Callable[[int], Any]) -> None:
        self._length, self._at = length, at

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        return self._at(index)


class LiveStream:
    """A stream whose chunks the backbone reads one by one, with the fields of ``stream.StreamChunks``."""

    def __init__(self, model: FrozenModel, stream: Stream, context_chunks: int) -> None:
        self.stream_id = stream.stream_id
        self.targets, self.mask, self.n_bytes = stream.targets, np.asarray(stream.mask, bool), stream.n_bytes
        self._last: tuple[int, FrozenChunk] | None = None

        def before(t: int) -> Any:
            if t == 0:
                return None
            if self._last is not None and self._last[0] == t - 1:
                return self._last[1].hidden
            return model.states(stream, t - 1, context_chunks).hidden

        def run(t: int) -> FrozenChunk:
            # The loop asks for several fields of one chunk in turn, and never goes back.
            if self._last is None or self._last[0] != t:
                self._last = (t, model.run(stream, t, context_chunks, before(t)))
            return self._last[1]

        count = len(stream.input_ids)
        self.hidden = _Column(count, lambda t: run(t).hidden)
        self.entropy = _Column(count, lambda t: run(t).entropy)
        self.nll_frozen = _Column(count, lambda t: run(t).nll)
        self.loss_frozen = _Column(count, lambda t: run(t).nll.astype(np.float64).sum() / self.mask[t].sum())
        self.flops = _Column(count, lambda t: run(t).hidden_flops)
        self.seconds = _Column(count, lambda t: run(t).hidden_seconds)
        self.suffix_flops = _Column(count, lambda t: run(t).suffix_flops)
        self.suffix_seconds = _Column(count, lambda t: run(t).suffix_seconds)
        self.projection_flops = _Column(count, lambda t: run(t).loss_flops)
        self.projection_seconds = _Column(count, lambda t: run(t).loss_seconds + run(t).features_seconds)
        self.features = _Column(count, lambda t: run(t).features)
        self.split = _Column(count, lambda t: run(t).split)
