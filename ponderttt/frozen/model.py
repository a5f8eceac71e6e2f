"""The frozen backbone as compiled programs, and what it computes and observes of one chunk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from ponderttt.costs import Cost, Program, count_flops
from ponderttt.errors import PonderTTTError
from ponderttt.features.frozen import ChunkSignals, frozen_features
from ponderttt.features.similarity import similarity_flops
from ponderttt.frozen.after import AfterCache
from ponderttt.frozen.chunks import FrozenChunks, mean_loss
from ponderttt.models.losses import frozen_losses, gradient_sketch

if TYPE_CHECKING:
    from ponderttt.corpus.streams import Stream
    from ponderttt.models.attention import AttentionStatistics
    from ponderttt.models.backbone import Backbone
    from ponderttt.models.losses import FrozenLosses
    from ponderttt.models.streaming import Ring
    from ponderttt.models.tokenizer import Tokenizer


class States(NamedTuple):
    """What the blocks of the backbone computed of one chunk in its context.

    Attributes:
        hidden: see :class:`ponderttt.frozen.chunks.FrozenChunks`.
        split: see :class:`ponderttt.frozen.chunks.FrozenChunks`.
        attention: statistics of the blocks after the split layer, [L, N, T] each.
        prefix: cost of the blocks before the split layer.
        suffix: cost of the blocks after it, which also observe attention.
    """

    hidden: Float[np.ndarray, "T D"]
    split: Float[np.ndarray, "S D"]
    attention: AttentionStatistics
    prefix: Cost
    suffix: Cost


class FrozenModel:
    """A backbone with its compiled programs: its states before and after the split layer, and its losses.

    Args:
        backbone: the frozen model.
        rehearse: run each program once after compilation, so that measured seconds are those of later chunks; without it
            the first chunk is there sooner.

    Raises:
        PonderTTTError: no block comes after the split layer.
    """

    def __init__(self, backbone: Backbone, *, rehearse: bool = True) -> None:
        if backbone.split_layer == backbone.config.layers:
            raise PonderTTTError(
                f"split_layer {backbone.split_layer} leaves no block whose attention can be observed; lower it"
            )
        self.backbone, self._rehearse = backbone, rehearse
        # Converted only where it is used: as float32 it may take more memory than all other parameters.
        self._unembedding = backbone.stored_unembedding
        with backbone.on_devices():
            self._sketch = gradient_sketch(self._unembedding)
        self._prefix = Program(
            lambda params, tokens: nnx.merge(backbone.graph, params).prefix(tokens), rehearse=rehearse
        )
        self._suffix: dict[int, Program] = {}
        self._after: dict[Ring, AfterCache] = {}
        self._losses = Program(frozen_losses, rehearse=rehearse)
        self._needed: dict[int, float] = {}
        self._ready = not rehearse

    def after(self, ring: Ring) -> AfterCache:
        """Return the programs that read a chunk after a cache of this shape."""
        if ring not in self._after:
            self._after[ring] = AfterCache(self.backbone, ring, rehearse=self._rehearse)
        return self._after[ring]

    def together(self, stream: Stream, index: int, context_chunks: int) -> States:
        """Read a chunk together with the ``context_chunks`` chunks before it."""
        bos_id = self.backbone.config.bos_id
        tokens = context_tokens(stream, index, context_chunks, bos_id)[None].astype(np.int32)
        chunk_size = stream.input_ids.shape[1]
        # Modules that start from the split layer need the state of the token in front of the chunk, if it is alone there.
        before = bos_id is not None and context_chunks == 0
        with self.backbone.on_devices():
            prefix = self._prefix(self.backbone.params, tokens)
            suffix = self._suffix_program(chunk_size)(
                self.backbone.params, prefix.value, tokens < self.backbone.config.vocab_size
            )
        hidden, attention = suffix.value
        return States(
            np.asarray(hidden)[0],
            np.asarray(prefix.value)[0, -chunk_size - before :].astype(np.float32, copy=False),
            jax.tree.map(lambda statistic: np.asarray(statistic)[:, 0], attention),
            prefix.cost,
            suffix.cost,
        )

    def observe(
        self, stream: Stream, index: int, states: States, previous: Float[np.ndarray, "T D"] | None
    ) -> FrozenChunks:
        """Score and observe one chunk.

        Args:
            stream: the chunk's stream.
            index: place of the chunk in its stream.
            states: what the blocks computed of it.
            previous: hidden states of the preceding chunk, if there is one.
        """
        targets = np.asarray(stream.targets[index], np.int32)
        with self.backbone.on_devices():
            losses = self._losses(states.hidden, self._unembedding, self._sketch, targets)
            needed = self._flops_of_losses(states.hidden, targets)
        compared = 0.0 if previous is None else similarity_flops(*states.hidden.shape)
        begin = time.perf_counter()
        tokenizer = self.backbone.tokenizer
        signals = chunk_signals(stream, index, states, losses.value, previous, tokenizer)
        if not self._ready:
            # The first call loads and compiles, the comparison with a preceding chunk too; no chunk should pay for that.
            frozen_features(signals._replace(previous_hidden=signals.hidden, previous_mask=signals.mask))
            self._ready, begin = True, time.perf_counter()
        features = frozen_features(signals)
        features_seconds = time.perf_counter() - begin
        return FrozenChunks(
            stream_id=stream.stream_id,
            hidden=states.hidden,
            targets=targets,
            mask=signals.mask,
            entropy=signals.entropy,
            nll_frozen=signals.nll,
            loss_frozen=mean_loss(signals.nll, signals.mask),
            n_bytes=np.asarray(stream.n_bytes)[index],
            flops=np.asarray(states.prefix.flops + states.suffix.flops),
            seconds=np.asarray(states.prefix.seconds + states.suffix.seconds),
            suffix_flops=np.asarray(states.suffix.flops),
            suffix_seconds=np.asarray(states.suffix.seconds),
            projection_flops=np.asarray(needed),
            projection_seconds=np.asarray(losses.seconds * needed / losses.flops),
            feature_flops=np.asarray(losses.flops - needed + compared),
            feature_seconds=np.asarray(losses.seconds * (1 - needed / losses.flops) + features_seconds),
            features=features,
            split=states.split,
        )

    def _flops_of_losses(self, hidden: Float[np.ndarray, "T D"], targets: Int[np.ndarray, " T"]) -> float:
        """Count the FLOPs of losses and entropies alone; the rest of :func:`frozen_losses` is for features."""
        if len(targets) not in self._needed:

            def needed(*arguments: Any) -> Any:
                losses = frozen_losses(*arguments)
                return losses.nll, losses.entropy

            self._needed[len(targets)] = float(
                count_flops(needed, hidden, self._unembedding, self._sketch, targets)
            )
        return self._needed[len(targets)]

    def _suffix_program(self, chunk_size: int) -> Program:
        """``(params, split [1, n·T, D], real [1, n·T]) → hidden [1, T, D], statistics [L, 1, N, T]``."""
        if chunk_size not in self._suffix:
            graph = self.backbone.graph
            self._suffix[chunk_size] = Program(
                lambda params, split, real: nnx.merge(graph, params).observed_suffix(split, real, chunk_size),
                rehearse=self._rehearse,
            )
        return self._suffix[chunk_size]


def chunk_signals(
    stream: Stream,
    index: int,
    states: States,
    losses: FrozenLosses,
    previous: Float[np.ndarray, "T D"] | None,
    tokenizer: Tokenizer | None,
) -> ChunkSignals:
    """Return what the features of a chunk are computed from; arguments as in :meth:`FrozenModel.observe`."""
    starts = stream.document_starts // stream.input_ids.shape[1]
    return ChunkSignals(
        hidden=states.hidden,
        mask=np.asarray(stream.mask[index], bool),
        **{name: np.asarray(values) for name, values in losses._asdict().items()},
        **{f"attention_{name}": values for name, values in states.attention._asdict().items()},
        text=chunk_text(stream, index, tokenizer),
        language=stream.language,
        boundary=float(np.count_nonzero(starts == index)),
        previous_hidden=previous,
        previous_mask=None if previous is None else np.asarray(stream.mask[index - 1], bool),
    )


def chunk_text(stream: Stream, index: int, tokenizer: Tokenizer | None) -> str:
    """Return the text that a chunk reads, each document on lines of its own; empty for a random model, without tokenizer."""
    if tokenizer is None:
        return ""
    ids = np.asarray(stream.input_ids[index])
    ids = ids[ids < tokenizer.vocab_size]
    documents = np.split(ids, np.flatnonzero(ids == tokenizer.eot_id))
    return "\n".join(
        tokenizer.decode(document[document != tokenizer.eot_id].tolist()) for document in documents
    )


def context_tokens(
    stream: Stream, chunk_index: int, context_chunks: int, bos_id: int | None = None
) -> Int[np.ndarray, " L"]:
    """Return the tokens that the backbone reads for a chunk: up to ``context_chunks`` chunks before it, then the chunk.

    The first one is the beginning-of-sequence token ``bos_id`` of a model that expects one.
    """
    first = max(0, chunk_index - context_chunks)
    tokens = np.asarray(stream.input_ids[first : chunk_index + 1]).reshape(-1)
    return tokens if bos_id is None else np.concatenate([np.asarray([bos_id], tokens.dtype), tokens])
