"""Read the chunks of one stream with the frozen backbone, in one context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ponderttt.contexts import Context
from ponderttt.costs import Cost
from ponderttt.errors import PonderTTTError
from ponderttt.frozen.model import FrozenModel, States
from ponderttt.models.families import family_of
from ponderttt.models.streaming import Ring, empty_past
from ponderttt.models.suffix import SuffixCache
from ponderttt.settings.context import ContextConfig

if TYPE_CHECKING:
    from ponderttt.corpus.streams import Stream
    from ponderttt.frozen.chunks import FrozenChunks
    from ponderttt.models.families.family import Shape
    from ponderttt.models.past_attention import Past
    from ponderttt.models.streaming import Fresh

NOTHING = Cost(0.0, 0.0)


def check_context(shape: Shape, chunk_size: int, context: Context, config: ContextConfig) -> None:
    """Raise PonderTTTError unless a model can read chunks in a context."""
    front, limit = len(shape.front), shape.max_context
    # Something must stay in a cache.
    least = 1 if context.kind == "full" else context.chunks
    positions = (least + 1) * chunk_size + front
    if positions > limit:
        shown = "" if context.kind == "alone" else f" in context {context}"
        raise PonderTTTError(
            f"chunk_size {chunk_size}{shown} needs {positions} positions, the model's context holds {limit}; lower "
            f"chunk_size{' or the number of chunks' if context.chunks else ''}"
        )
    if not context.is_cached:
        return
    if not _is_rotary(shape):
        if context.kind == "window":
            raise PonderTTTError(
                f"context {context} needs rotary positions, and {shape.family} has learned ones; use "
                f"context_{context.chunks}, which reads the chunks again"
            )
        if config.at_limit == "slide":
            raise PonderTTTError(
                f"context.at_limit slide needs rotary positions, and {shape.family} has learned ones; set it to reread_half"
            )
    held = _capacity(shape, chunk_size, context) * chunk_size
    if config.sinks > held:
        raise PonderTTTError(
            f"context.sinks must be at most {held}, the tokens that {context} keeps, got {config.sinks}"
        )


def _is_rotary(shape: Shape) -> bool:
    return family_of(shape).places(shape, jnp.arange(1)).angles is not None


def _capacity(shape: Shape, chunk_size: int, context: Context) -> int:
    """Return the number of earlier chunks that a chunk may see."""
    return context.chunks or (shape.max_context - len(shape.front)) // chunk_size - 1


def ring_of(shape: Shape, chunk_size: int, chunks: int, context: Context, config: ContextConfig) -> Ring:
    """Return the shape of a cache for a stream of this many chunks."""
    # A power of two, so that streams of different lengths share programs.
    needed = 1 << max(0, chunks - 2).bit_length()
    front = len(shape.front)
    slots = min(_capacity(shape, chunk_size, context), needed)
    return Ring(chunk_size, slots, max(config.sinks, front), front)


def suffix_cache(
    shape: Shape,
    chunk_size: int,
    context: Context,
    config: ContextConfig,
    layers: int,
    chunks: int | None = None,
) -> SuffixCache | None:
    """Return the cache of adapted blocks; None if each chunk is read alone.

    Args:
        shape: the backbone.
        chunk_size: tokens of a chunk.
        context: what each chunk sees.
        config: how the context ends.
        layers: number of blocks after the split layer.
        chunks: chunks of the longest stream, if it is known.

    Raises:
        PonderTTTError: at the model's limit, the context reads earlier chunks again, which adapted blocks cannot do.
    """
    if not context.is_cached:
        return None
    if context.kind == "full" and config.at_limit == "reread_half":
        raise PonderTTTError(
            "suffix on context full cannot read chunks again: set context.at_limit to slide, which needs a model with "
            "rotary positions, or use suffix on a chunk alone"
        )
    longest = _capacity(shape, chunk_size, context) + 1 if chunks is None else chunks
    return SuffixCache(ring_of(shape, chunk_size, longest, context, config), layers)


class Start(NamedTuple):
    """The first tokens of a chunk, read after a cache of earlier chunks; what follows them is padding.

    Attributes:
        hidden: final states.
        split: states at the split layer, after those of the ring's ``front``.
        place: place of the chunk since the cache was empty.
        ring: shape of the cache.
        past: the cache of the blocks before and after the split layer; a later read of the stream overwrites it.
        fresh: keys and values of the chunk in the same blocks; those of chunk 0 start with the ring's ``front``.
    """

    hidden: Float[np.ndarray, "T D"]
    split: Float[np.ndarray, "S D"]
    place: int
    ring: Ring
    past: tuple[Past, Past]
    fresh: tuple[Fresh, Fresh]


class StreamReader:
    """Reads the chunks of one stream.

    A cached context reads them in order, each once: a chunk that comes earlier than the last one starts the stream again.

    Args:
        model: the frozen backbone.
        stream: the stream; chunks are looked up when they are read, so they may be filled in later.
        context: what each chunk sees.
        config: how the context ends.

    Raises:
        PonderTTTError: the model cannot read chunks in this context.
    """

    def __init__(self, model: FrozenModel, stream: Stream, context: Context, config: ContextConfig) -> None:
        self.model, self.stream, self.context, self.config = model, stream, context, config
        shape, chunk_size = model.backbone.config, stream.input_ids.shape[1]
        check_context(shape, chunk_size, context, config)
        self._cache = _Cache(model, stream, context, config) if context.is_cached else None

    def states(self, index: int) -> States:
        """Return what the blocks compute of a chunk, with its costs."""
        if self._cache is None:
            return self.model.together(self.stream, index, self.context.chunks)
        return self._cache.read_to(index)

    def start(self, tokens: Sequence[int]) -> Start:
        """Read the first tokens of the chunk after the last one that was read; for a cached context."""
        assert self._cache is not None
        return self._cache.read_start(tokens)

    def chunk(self, index: int, previous: Float[np.ndarray, "T D"] | None) -> FrozenChunks:
        """Read, score and observe a chunk; ``previous`` are the hidden states of the one before it."""
        return self.model.observe(self.stream, index, self.states(index), previous)


class _Cache:
    """The cache of one stream, and the programs that read a chunk after it."""

    def __init__(self, model: FrozenModel, stream: Stream, context: Context, config: ContextConfig) -> None:
        self.model, self.stream = model, stream
        shape, chunk_size = model.backbone.config, stream.input_ids.shape[1]
        self.capacity = _capacity(shape, chunk_size, context)
        self.rereads = context.kind == "full" and config.at_limit == "reread_half"
        self.ring = ring_of(shape, chunk_size, len(stream.input_ids), context, config)
        #: States of the tokens in front of the first chunk at the split layer: they see only themselves.
        self.front: Float[np.ndarray, "X D"] | None = None
        self.following = 0
        self._restart(0)

    def _restart(self, origin: int) -> None:
        """Empty the cache; chunk ``origin`` is the first one after it."""
        backbone, self.origin = self.model.backbone, origin
        shape, split = backbone.config, backbone.split_layer
        dtype = nnx.merge(backbone.graph, backbone.params).outer.arrays()["final_norm"].dtype
        with backbone.on_devices():
            self.before = empty_past(shape, self.ring, split, dtype)
            self.after = empty_past(shape, self.ring, shape.layers - split, dtype)

    def read_to(self, index: int) -> States:
        """Read all chunks up to ``index`` that were not read yet; return the states of the last one."""
        if index < self.following:
            self.following = 0
            self._restart(0)
        for earlier in range(self.following, index):
            self._read_on(earlier)
        return self._read_on(index)

    def read_start(self, tokens: Sequence[int]) -> Start:
        """Read the first tokens of the next chunk, for decoding; the cache keeps only whole chunks."""
        index, size = self.following, self.ring.chunk_size
        self._make_room(index)
        backbone, place = self.model.backbone, index - self.origin
        front = backbone.config.front if place == 0 else ()
        padded = np.full(len(front) + size, backbone.config.pad_id, np.int32)
        padded[: len(front) + len(tokens)] = [*front, *tokens]
        programs, real = self.model.after(self.ring), jnp.asarray(padded < backbone.config.vocab_size)
        with backbone.on_devices():
            split, before, _ = programs.prefix.read(backbone.params, jnp.asarray(padded), self.before, place)
            (hidden, _), after, _ = programs.suffix.read(backbone.params, (split, real), self.after, place)
        kept = self._with_front(split)
        return Start(np.asarray(hidden), kept, place, self.ring, (self.before, self.after), (before, after))

    def _read_on(self, index: int) -> States:
        """Read the next chunk."""
        prefix, suffix = self._make_room(index)
        states = self._read(index)
        self.following = index + 1
        return states._replace(prefix=_sum(prefix, states.prefix), suffix=_sum(suffix, states.suffix))

    def _make_room(self, index: int) -> tuple[Cost, Cost]:
        """At the model's limit, read the last half of it into an empty cache, unless the oldest chunk makes room."""
        prefix = suffix = NOTHING
        if self.rereads and index - self.origin > self.capacity:
            self._restart(index - (self.capacity + 1) // 2)
            for earlier in range(self.origin, index):
                states = self._read(earlier)
                prefix, suffix = _sum(prefix, states.prefix), _sum(suffix, states.suffix)
        return prefix, suffix

    def _read(self, index: int) -> States:
        backbone, place = self.model.backbone, index - self.origin
        front = backbone.config.front if place == 0 else ()
        tokens = jnp.asarray([*front, *np.asarray(self.stream.input_ids[index])], jnp.int32)
        real = tokens < backbone.config.vocab_size
        programs = self.model.after(self.ring)
        with backbone.on_devices():
            split, self.before, prefix = programs.prefix(backbone.params, tokens, self.before, place)
            found, self.after, suffix = programs.suffix(backbone.params, (split, real), self.after, place)
        hidden, attention = found
        return States(
            np.asarray(hidden),
            self._with_front(split),
            jax.tree.map(np.asarray, attention),
            prefix,
            suffix,
        )

    def _with_front(self, split: Float[Array, "T D"]) -> Float[np.ndarray, "S D"]:
        """Put the states of ``front`` before a chunk's, for modules that start from the split layer."""
        states, size = np.asarray(split).astype(np.float32, copy=False), self.ring.chunk_size
        if self.front is None:
            self.front = states[:-size]
        return np.concatenate([self.front, states[-size:]])


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(one.flops + other.flops, one.seconds + other.seconds)
