"""The frozen pass: what the backbone says of every chunk, computed once per (model, corpus, context).

``data/hidden/{model}/{corpus}/context-{n}/`` holds one safetensors file for each stream and a manifest.  Every
arm, seed and policy reads these; none runs the backbone again.  A file appears when its stream is finished, so a
pass that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from ponderttt.costs import Program
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.features.frozen import ChunkSignals, frozen_features
from ponderttt.files.atomic import atomic_path, digest
from ponderttt.files.manifest import read_manifest, start_or_continue, write_manifest
from ponderttt.frozen.streams import StreamChunks
from ponderttt.models.losses import frozen_losses, gradient_sketch

if TYPE_CHECKING:
    from ponderttt.corpus.streams import Stream
    from ponderttt.models.attention import AttentionStatistics
    from ponderttt.models.backbone import Backbone
    from ponderttt.models.families.family import Shape
    from ponderttt.models.losses import FrozenLosses
    from ponderttt.models.tokenizer import Tokenizer

KIND = "hidden"


class States(NamedTuple):
    """Of one chunk in its context: what the blocks of the backbone computed, and what that cost."""

    #: Residual stream at the split layer; with one more row, for the beginning-of-sequence token of a model that has one.
    split: Float[np.ndarray, "S D"]
    #: Final normed hidden states.
    hidden: Float[np.ndarray, "T D"]
    #: Of the blocks after the split, [L, N, T] each.
    attention: AttentionStatistics
    hidden_flops: float
    hidden_seconds: float
    #: The part of ``hidden_flops`` and ``hidden_seconds`` after the split layer, which also observes attention.
    suffix_flops: float
    suffix_seconds: float


class FrozenChunk(NamedTuple):
    """Of one chunk: what the backbone computed, what can be seen of it, and what that cost."""

    hidden: Float[np.ndarray, "T D"]
    #: Residual stream at the split layer, where somebody asked for it.
    split: Float[np.ndarray, "S D"] | None
    #: Negative log-likelihood of each target, 0 where masked; nats.
    nll: Float[np.ndarray, " T"]
    #: Entropy of each prediction, 0 where masked; nats.
    entropy: Float[np.ndarray, " T"]
    #: By :data:`ponderttt.features.table.FROZEN`.
    features: Float[np.ndarray, " F"]
    hidden_flops: float
    hidden_seconds: float
    suffix_flops: float
    suffix_seconds: float
    loss_flops: float
    loss_seconds: float
    #: What it took to compute the features once the programs had run.
    features_seconds: float


class FrozenModel:
    """A backbone with its compiled programs: states of a chunk in context, before and after the split, and losses.

    Raises:
        PonderTTTError: no block comes after the split layer.
    """

    def __init__(self, backbone: Backbone) -> None:
        if backbone.split_layer == backbone.config.layers:
            raise PonderTTTError(
                f"split_layer {backbone.split_layer} leaves no block whose attention could be observed; lower it"
            )
        self.backbone = backbone
        # Opened where it is used: as float32 it may take more memory than all other parameters.
        self._unembedding = backbone.stored_unembedding
        with backbone.on_devices():
            self._sketch = gradient_sketch(self._unembedding)
        self._prefix = Program(lambda params, tokens: nnx.merge(backbone.graph, params).prefix(tokens))
        self._suffix: dict[int, Program] = {}
        self._losses = Program(frozen_losses)
        self._ready = False

    def states(self, stream: Stream, index: int, context_chunks: int) -> States:
        """Read a chunk after the ``context_chunks`` before it."""
        bos_id = self.backbone.config.bos_id
        tokens = context_tokens(stream, index, context_chunks, bos_id)[None].astype(np.int32)
        chunk_size = stream.input_ids.shape[1]
        # Who goes on from the split layer needs the state of what stands in front of the chunk, if that is one token.
        before = bos_id is not None and context_chunks == 0
        with self.backbone.on_devices():
            prefix = self._prefix(self.backbone.params, tokens)
            suffix = self._suffix_program(chunk_size)(
                self.backbone.params, prefix.value, tokens < self.backbone.config.vocab_size
            )
        hidden, attention = suffix.value
        return States(
            np.asarray(prefix.value)[0, -chunk_size - before :].astype(np.float32, copy=False),
            np.asarray(hidden)[0],
            jax.tree.map(lambda statistic: np.asarray(statistic)[:, 0], attention),
            prefix.flops + suffix.flops,
            prefix.seconds + suffix.seconds,
            suffix.flops,
            suffix.seconds,
        )

    def run(
        self, stream: Stream, index: int, context_chunks: int, previous: Float[np.ndarray, "T D"] | None
    ) -> FrozenChunk:
        """Read, score and observe a chunk; ``previous`` are the hidden states of the chunk before it, if any."""
        states = self.states(stream, index, context_chunks)
        targets = np.asarray(stream.targets[index], np.int32)
        with self.backbone.on_devices():
            losses = self._losses(states.hidden, self._unembedding, self._sketch, targets)
        begin = time.perf_counter()
        tokenizer = self.backbone.tokenizer
        signals = chunk_signals(stream, index, states, losses.value, previous, tokenizer)
        if not self._ready:
            # The first time loads and compiles what no chunk should pay for, the comparison with a chunk before it too.
            frozen_features(signals._replace(previous_hidden=signals.hidden, previous_mask=signals.mask))
            self._ready, begin = True, time.perf_counter()
        features = frozen_features(signals)
        return FrozenChunk(
            states.hidden,
            states.split,
            signals.nll,
            signals.entropy,
            features,
            states.hidden_flops,
            states.hidden_seconds,
            states.suffix_flops,
            states.suffix_seconds,
            losses.flops,
            losses.seconds,
            time.perf_counter() - begin,
        )

    def _suffix_program(self, chunk_size: int) -> Program:
        """``(params, split [1, n·T, D], real [1, n·T]) → hidden [1, T, D], statistics [L, 1, N, T]``."""
        if chunk_size not in self._suffix:
            graph = self.backbone.graph
            self._suffix[chunk_size] = Program(
                lambda params, split, real: nnx.merge(graph, params).observed_suffix(split, real, chunk_size)
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
    """What the features of a chunk are made of; ``previous`` are the hidden states of the chunk before it, if any."""
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
    """What a chunk reads, documents on lines of their own; empty for a random model, which has no tokenizer."""
    if tokenizer is None:
        return ""
    ids = np.asarray(stream.input_ids[index])
    ids = ids[ids < tokenizer.vocab_size]
    documents = np.split(ids, np.flatnonzero(ids == tokenizer.eot_id))
    return "\n".join(tokenizer.decode(document[document != tokenizer.eot_id]) for document in documents)


def context_tokens(
    stream: Stream, chunk_index: int, context_chunks: int, bos_id: int | None = None
) -> Int[np.ndarray, " L"]:
    """The tokens that the backbone attends to when it reads a chunk: up to ``context_chunks`` before it, then it.

    In front of them stands the beginning-of-sequence token ``bos_id`` of a model that expects one.
    """
    first = max(0, chunk_index - context_chunks)
    tokens = np.asarray(stream.input_ids[first : chunk_index + 1]).reshape(-1)
    return tokens if bos_id is None else np.concatenate([np.asarray([bos_id], tokens.dtype), tokens])


def check_context(shape: Shape, chunk_size: int, context_chunks: int) -> None:
    """Raise PonderTTTError if a chunk with its context is longer than the model's context."""
    positions, limit = (context_chunks + 1) * chunk_size + (shape.bos_id is not None), shape.max_context
    if positions > limit:
        raise PonderTTTError(
            f"chunk_size {chunk_size} with context_chunks {context_chunks} needs {positions} positions, the model's "
            f"context holds {limit}; lower chunk_size or context_chunks"
        )


def run_frozen_pass(
    backbone: Backbone,
    streams: Sequence[Stream],
    output_dir: Path | str,
    *,
    context_chunks: int,
    keep_hidden: bool,
    keep_split: bool = False,
    facts: dict[str, Any],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Read every chunk of every stream once and write what the arms need.

    Args:
        backbone: the frozen model.
        streams: of one corpus.
        output_dir: gets one file for each stream, then the manifest.
        context_chunks: how many preceding chunks the backbone sees by attention.
        keep_hidden: whether hidden states are written (the cache) or recomputed by those who need them.
        keep_split: whether the states at the split layer go with them, for arms that adapt the blocks after it.
        facts: what the manifest must say of the inputs; another value starts the pass anew.
        progress: called with (chunks done, chunks in all).

    Raises:
        PonderTTTError: the chunk with its context is longer than the model's context, or the disk is full.
    """
    from safetensors.numpy import save_file

    chunk_size = streams[0].input_ids.shape[1]
    check_context(backbone.config, chunk_size, context_chunks)
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    facts = {
        **facts,
        "context_chunks": context_chunks,
        "keep_hidden": keep_hidden,
        "keep_split": keep_split,
        "model_digest": backbone.digest,
        "split_layer": backbone.split_layer,
    }
    start_or_continue(output_dir, digest(facts), "stream-*.safetensors")
    model = FrozenModel(backbone)
    total, done = sum(len(stream.input_ids) for stream in streams), 0
    for number, stream in enumerate(streams):
        file = output_dir / _file_name(number)
        if not file.exists():
            chunks: list[FrozenChunk] = []
            for index in range(len(stream.input_ids)):
                previous = chunks[-1].hidden if chunks else None
                chunk = model.run(stream, index, context_chunks, previous)
                # Split states of a whole stream would double what is held in memory.
                chunks.append(chunk if keep_hidden and keep_split else chunk._replace(split=None))
                progress(done + index + 1, total)
            kept = {"hidden": keep_hidden, "split": keep_hidden and keep_split}
            arrays = {
                name: np.stack([getattr(c, name) for c in chunks])
                for name in FrozenChunk._fields
                if kept.get(name, True)
            }
            with atomic_path(file) as temporary:
                save_file(arrays, temporary, metadata={"stream_id": stream.stream_id})
        done += len(stream.input_ids)
    rows = {_file_name(number): len(stream.input_ids) for number, stream in enumerate(streams)}
    write_manifest(output_dir, KIND, rows, facts)


def open_frozen_pass(
    folder: Path | str, streams: Sequence[Stream], rebuild: str, recompute: FrozenModel | None = None
) -> tuple[list[StreamChunks], dict[str, Any]]:
    """What the frozen pass left of each stream, and the facts of its manifest.

    Args:
        folder: of :func:`run_frozen_pass`.
        streams: the corpus that it read.
        rebuild: command for error messages.
        recompute: the model to run again where hidden states were not kept.

    Raises:
        CorruptFileError: damaged, or of another corpus.
        PonderTTTError: hidden states were not kept and there is no model to compute them.
    """
    from safetensors.numpy import load_file

    folder = Path(folder)
    facts = read_manifest(folder, KIND, rebuild)["facts"]
    opened = []
    for number, stream in enumerate(streams):
        file = folder / _file_name(number)
        if not file.exists():
            raise CorruptFileError(
                f"{file}: missing, so {folder} is of another corpus. Rebuild it: {rebuild}"
            )
        arrays = load_file(file)
        if len(arrays["nll"]) != len(stream.input_ids):
            raise CorruptFileError(
                f"{file}: has another number of chunks than its stream. Rebuild it: {rebuild}"
            )
        if "hidden" not in arrays:
            if recompute is None:
                raise PonderTTTError(
                    f"{folder}: hidden states were not kept (cache: off); the model is needed"
                )
            states = [
                recompute.states(stream, index, facts["context_chunks"])
                for index in range(len(stream.input_ids))
            ]
            arrays["hidden"] = np.stack([state.hidden for state in states])
            if facts["keep_split"]:
                arrays["split"] = np.stack([state.split for state in states])
        mask = np.asarray(stream.mask, bool)
        opened.append(
            StreamChunks(
                stream_id=stream.stream_id,
                hidden=arrays["hidden"],
                targets=np.asarray(stream.targets),
                mask=mask,
                entropy=arrays["entropy"],
                nll_frozen=arrays["nll"],
                loss_frozen=arrays["nll"].astype(np.float64).sum(-1) / mask.sum(-1),
                n_bytes=np.asarray(stream.n_bytes),
                flops=arrays["hidden_flops"],
                seconds=arrays["hidden_seconds"],
                suffix_flops=arrays["suffix_flops"],
                suffix_seconds=arrays["suffix_seconds"],
                projection_flops=arrays["loss_flops"],
                # Features are part of observing a chunk, as losses are: whoever decides by them has paid for both.
                projection_seconds=arrays["loss_seconds"] + arrays["features_seconds"],
                features=arrays["features"],
                split=arrays.get("split"),
            )
        )
    return opened, facts


def _file_name(number: int) -> str:
    return f"stream-{number:05d}.safetensors"
