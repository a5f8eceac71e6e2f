"""The frozen pass: what the backbone says of every chunk, computed once per (model, corpus, context).

``data/hidden/{model}/{corpus}/context-{n}/`` holds one safetensors file for each stream and a manifest.  Every
arm, seed and policy reads these; none runs the backbone again.  A file appears when its stream is finished, so a
pass that was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.provenance import MANIFEST, atomic_path, digest, read_manifest, write_json, write_manifest

if TYPE_CHECKING:
    from ponderttt.corpus.chunks import Stream
    from ponderttt.models.backbone import Backbone
    from ponderttt.stream_data import StreamChunks

KIND = "hidden"
SETTINGS = "settings.json"


class FrozenChunk(NamedTuple):
    """Of one chunk: what the backbone computed, and what that cost."""

    hidden: Float[np.ndarray, "T D"]
    #: Negative log-likelihood of each target, 0 where masked; nats.
    nll: Float[np.ndarray, " T"]
    #: Entropy of each prediction; nats.
    entropy: Float[np.ndarray, " T"]
    hidden_flops: float
    hidden_seconds: float
    loss_flops: float
    loss_seconds: float


class FrozenModel:
    """A backbone with its two compiled programs: hidden states of a chunk in context, and their losses."""

    def __init__(self, backbone: Backbone) -> None:
        from ponderttt.costs import Program
        from ponderttt.models.losses import linear_cross_entropy_and_entropy

        self.backbone = backbone
        self._hidden: dict[int, Any] = {}
        self._loss = Program(linear_cross_entropy_and_entropy)
        self._program = Program

    def hidden_program(self, chunk_size: int) -> Any:
        """``(params, tokens [1, n·T]) → hidden [1, T, D]`` of the last chunk."""
        from flax import nnx

        if chunk_size not in self._hidden:
            graph = self.backbone.graph

            def last_chunk(params: Any, tokens: Any) -> Any:
                return nnx.merge(graph, params).hidden(tokens, chunk_size)

            self._hidden[chunk_size] = self._program(last_chunk)
        return self._hidden[chunk_size]

    def run(self, tokens: Int[np.ndarray, " L"], targets: Int[np.ndarray, " T"]) -> FrozenChunk:
        """Read ``tokens`` (context, then the chunk) and score the chunk's targets; a masked target is the pad id."""
        hidden = self.hidden_program(len(targets))(self.backbone.params, tokens[None].astype(np.int32))
        state = hidden.value[0].astype(np.float32)
        loss = self._loss(state, self.backbone.unembedding, targets.astype(np.int32))
        nll, entropy = loss.value
        return FrozenChunk(
            np.asarray(state),
            np.asarray(nll),
            np.asarray(entropy),
            hidden.flops,
            hidden.seconds,
            loss.flops,
            loss.seconds,
        )


def context_tokens(stream: Stream, chunk_index: int, context_chunks: int) -> Int[np.ndarray, " L"]:
    """The tokens that the backbone attends to when it reads a chunk: up to ``context_chunks`` before it, then it."""
    first = max(0, chunk_index - context_chunks)
    return np.asarray(stream.input_ids[first : chunk_index + 1]).reshape(-1)


def check_context(limit: int, chunk_size: int, context_chunks: int) -> None:
    """Raise PonderTTTError if a chunk with its context is longer than the model's context."""
    positions = (context_chunks + 1) * chunk_size
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
        facts: what the manifest must say of the inputs; another value starts the pass anew.
        progress: called with (chunks done, chunks in all).

    Raises:
        PonderTTTError: the chunk with its context is longer than the model's context, or the disk is full.
    """
    from safetensors.numpy import save_file

    chunk_size = streams[0].input_ids.shape[1]
    check_context(backbone.config.max_context, chunk_size, context_chunks)
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    facts = {
        **facts,
        "context_chunks": context_chunks,
        "keep_hidden": keep_hidden,
        "model_digest": backbone.digest,
    }
    _start_or_continue(output_dir, digest(facts))
    model = FrozenModel(backbone)
    total, done = sum(len(stream.input_ids) for stream in streams), 0
    for number, stream in enumerate(streams):
        file = output_dir / _file_name(number)
        if not file.exists():
            chunks = []
            for index in range(len(stream.input_ids)):
                tokens = context_tokens(stream, index, context_chunks)
                chunks.append(model.run(tokens, np.asarray(stream.targets[index])))
                progress(done + index + 1, total)
            arrays = {name: np.stack([getattr(c, name) for c in chunks]) for name in FrozenChunk._fields}
            if not keep_hidden:
                del arrays["hidden"]
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

    from ponderttt.stream_data import StreamChunks

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
            chunks = range(len(stream.input_ids))
            runs = [
                recompute.run(
                    context_tokens(stream, i, facts["context_chunks"]), np.asarray(stream.targets[i])
                )
                for i in chunks
            ]
            arrays["hidden"] = np.stack([run.hidden for run in runs])
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
                projection_flops=arrays["loss_flops"],
                projection_seconds=arrays["loss_seconds"],
            )
        )
    return opened, facts


def _file_name(number: int) -> str:
    return f"stream-{number:05d}.safetensors"


def _start_or_continue(folder: Path, settings: str) -> None:
    """Keep the finished streams of the same settings, remove those of others."""
    marker = folder / SETTINGS
    if not marker.exists() or settings not in marker.read_text():
        for old in (*folder.glob("stream-*.safetensors"), folder / MANIFEST, marker):
            old.unlink(missing_ok=True)
        write_json(marker, {"settings": settings})
