"""One text that is read and continued with fast weights.

The text is a stream like any other. Full chunks go through the loop: they are scored, and learned from as the policy
decides. The current chunk is read token by token with the fast weights unchanged; once it is full, whether from the
prompt or generated, it goes through the loop as well. A policy sees the largest length that the text may reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ponderttt.contexts import Context
from ponderttt.corpus.streams import Stream
from ponderttt.decoding.cache import (
    CACHE_BUCKET,
    Cache,
    Fresh,
    Read,
    Unstacked,
    bucket,
    left_padded,
    prefill,
    step,
    unstack,
    write,
)
from ponderttt.decoding.continued import after_start
from ponderttt.errors import PonderTTTError
from ponderttt.fast_weights.base import Chunk, FastWeights
from ponderttt.frozen.live import live_stream
from ponderttt.frozen.model import FrozenModel
from ponderttt.frozen.reading import StreamReader
from ponderttt.loop.arm import initial_state
from ponderttt.loop.methods import Spending, arm_of
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.stream import advance
from ponderttt.models.families.family import Shape
from ponderttt.models.suffix import SuffixWeights
from ponderttt.names import MethodName
from ponderttt.records.step import Step
from ponderttt.settings.context import ContextConfig


@partial(jax.jit, static_argnums=(0, 3, 4))
def _prefill(
    shape: Shape, weights: Unstacked, tokens: Array, slots: int, split: int | None
) -> tuple[Read, Cache]:
    return prefill(shape, weights, tokens, slots, split)


@partial(jax.jit, static_argnums=(0, 4))
def _step(
    shape: Shape, weights: Unstacked, token: Array, cache: Cache, split: int | None
) -> tuple[Read, Fresh]:
    return step(shape, weights, token, cache, split)


class Source(NamedTuple):
    """Where a text comes from; the features of its chunks, and so the decisions of learned policies, depend on it.

    Attributes:
        name: name of the stream; random decisions depend on it.
        language: language whose lexer measures the chunks.
        document_starts: first token of each document; generated tokens belong to the last one.
        document_paths: path of each document.
    """

    name: str = "text"
    language: str = "any"
    document_starts: tuple[int, ...] = (0,)
    document_paths: tuple[str, ...] = ("text",)


_UNKNOWN = Source()


class AdaptiveText:
    """A text that is read and continued.

    Args:
        model: the frozen backbone.
        module: fast weights.
        method: what decides after each chunk.
        spending: the budget, and what the policy knows.
        chunk_size: tokens of a chunk.
        context: what the backbone attends to while it reads a chunk.
        ends: how the context ends.
        max_tokens: largest length of the text, with its prompt.
        suffix: frozen weights of the blocks after the split layer, for modules that read from there.
        seed: seed of random decisions.
        source: where the text comes from.
    """

    def __init__(
        self,
        model: FrozenModel,
        module: FastWeights,
        method: MethodName,
        spending: Spending,
        *,
        chunk_size: int,
        context: Context,
        ends: ContextConfig,
        max_tokens: int,
        suffix: SuffixWeights | None = None,
        seed: int = 0,
        source: Source = _UNKNOWN,
    ) -> None:
        self.backbone = model.backbone
        self.weights = unstack(nnx.merge(self.backbone.graph, self.backbone.params))
        self.chunk_size, self.context, self.max_tokens = chunk_size, context, max_tokens
        self.ids: list[int] = []
        # A stream of the largest length; chunks are filled in once they are full.
        self.stream = _empty_stream(max_tokens, chunk_size, self.backbone.config.pad_id, source)
        self._reader = StreamReader(model, self.stream, context, ends)
        self._group = Group([live_stream(self._reader)], self.backbone.stored_unembedding, suffix)
        self._programs = ModulePrograms(module)
        self._arm = arm_of(method, self._programs, spending, seed)
        self._states = {self._arm.name: initial_state(self._arm, 1)}
        self._splits = self._programs.reads == "split"
        with self.backbone.on_devices():
            self._readout = self._programs.readout(self.backbone.stored_unembedding, None, suffix)
        graph = nnx.graphdef(module)

        def next_token(slow: Any, fast: Any, chunk: Chunk, readout: Any, position: Array) -> Array:
            one = jax.tree.map(lambda leaf: leaf[0], fast)
            return nnx.merge(graph, slow).next_token(one, chunk, readout, position[None])[0]

        self._next_token = jax.jit(next_token)
        self._done = 0
        self._cache: Cache | None = None
        #: Number of tokens of the current chunk that are in the cache.
        self._known = 0
        self._hidden: np.ndarray | None = None
        self._split: np.ndarray | None = None

    def read(self, ids: Sequence[int]) -> Iterator[Step]:
        """Read tokens and yield one step for each chunk that they fill.

        Raises:
            PonderTTTError: more tokens than ``max_tokens``.
        """
        if len(self.ids) + len(ids) > self.max_tokens:
            raise PonderTTTError(
                f"the text must have at most {self.max_tokens} tokens, got {len(self.ids) + len(ids)}"
            )
        for token in ids:
            self.ids.append(int(token))
            # The last target of a chunk is the first token of the next chunk.
            if len(self.ids) == (self._done + 1) * self.chunk_size + 1:
                yield self._learn()

    @property
    def fast(self) -> Any:
        """The current fast weights, with a leading axis of 1."""
        return self._states[self._arm.name].fast

    def next_token(self) -> Float[Array, " V"]:
        """Return the log-probabilities of the next token."""
        with self.backbone.on_devices():
            return self._predicted()

    def _predicted(self) -> Float[Array, " V"]:
        self._catch_up()
        assert self._hidden is not None
        position = len(self.ids) - 1 - self._done * self.chunk_size
        chunk = Chunk(
            hidden=jnp.asarray(self._hidden),
            targets=jnp.zeros(self.chunk_size, jnp.int32),
            mask=jnp.arange(self.chunk_size) <= position,
            entropy=jnp.zeros(self.chunk_size),
            nll_frozen=jnp.zeros(self.chunk_size),
            split=jnp.asarray(self._split) if self._splits else None,
        )
        fast = self._programs.trimmed(self.fast, self._done)
        found: Array = self._next_token(
            self._programs.slow, fast, chunk, self._readout, jnp.asarray(position)
        )
        return found

    def _learn(self) -> Step:
        """Take the full chunk through the loop."""
        t, size = self._done, self.chunk_size
        tokens = np.asarray(self.ids[t * size : (t + 1) * size + 1], np.int32)
        tokenizer = self.backbone.tokenizer
        self.stream.input_ids[t], self.stream.targets[t] = tokens[:-1], tokens[1:]
        self.stream.n_bytes[t] = 0 if tokenizer is None else sum(tokenizer.token_bytes(tokens[1:]))
        with self.backbone.on_devices():
            ((_, taken),) = advance([self._arm], self._states, self._group, t)
        self._done += 1
        # The next chunk starts with a new cache.
        self._cache = None
        return taken

    def _catch_up(self) -> None:
        """Read the tokens of the current chunk that are not in the cache yet."""
        size = self.chunk_size
        split = self.backbone.split_layer if self._splits else None
        start = self._done * size
        if self._cache is None:
            self._begin_chunk(self.ids[start:], split)
        assert self._hidden is not None and self._cache is not None
        for place in range(self._known, len(self.ids) - start):
            token = jnp.asarray([self.ids[start + place]], jnp.int32)
            read, fresh = _step(self.backbone.config, self.weights, token, self._cache, split)
            self._cache = write(self._cache, fresh)
            self._hidden[place] = np.asarray(read.hidden)[0]
            if read.split is not None and self._split is not None:
                self._split[place - size] = np.asarray(read.split, np.float32)[0]
            self._known = place + 1

    def _begin_chunk(self, own: Sequence[int], split: int | None) -> None:
        """Read the first tokens of the current chunk after its context."""
        if self.context.is_cached:
            begun = self._reader.start(own)
            self._hidden, self._cache = (
                begun.hidden.copy(),
                after_start(self.backbone.config, begun, len(own)),
            )
            self._split = begun.split.copy()
        else:
            self._read_together(len(own), split)
        self._known = len(own)

    def _read_together(self, own: int, split: int | None) -> None:
        """Read the last ``own`` tokens together with the chunks before them."""
        size, front, chunks = self.chunk_size, self.backbone.config.front, self.context.chunks
        tokens = [*front, *self.ids[max(0, self._done - chunks) * size :]]
        # One width for any number of tokens, so one program.
        widest = (chunks + 1) * size + len(front)
        padded = left_padded([tokens], self.backbone.config.pad_id, widest)
        slots = bucket(widest + size, CACHE_BUCKET)
        read, self._cache = _prefill(self.backbone.config, self.weights, padded, slots, split)
        width = read.hidden.shape[-1]
        self._hidden = np.zeros((size, width), np.float32)
        self._hidden[:own] = np.asarray(read.hidden)[0, -own:]
        if read.split is not None:
            # The split states include a beginning-of-sequence token before the chunk.
            before = 0 if chunks else len(front)
            self._split = np.zeros((size + before, width), np.float32)
            self._split[: own + before] = np.asarray(read.split, np.float32)[0, -own - before :]


def _empty_stream(max_tokens: int, chunk_size: int, pad_id: int, source: Source) -> Stream:
    """Return a stream with room for the chunks of ``max_tokens`` tokens, filled with padding.

    The last chunk may be too short to be read, but what was learned before it helps there.
    """
    count = max(1, -(-(max_tokens - 1) // chunk_size))
    pads = np.full((count, chunk_size), pad_id, np.int32)
    return Stream(
        stream_id=source.name,
        language=source.language,
        input_ids=pads,
        targets=pads.copy(),
        mask=np.ones((count, chunk_size), bool),
        n_bytes=np.zeros(count, np.int32),
        document_starts=np.asarray(source.document_starts, np.int32),
        document_paths=source.document_paths,
    )
