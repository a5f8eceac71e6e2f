"""The frozen pass on disk: what the backbone computes of every chunk, once per (model, corpus, context).

``data/hidden/{model}/{corpus}/{context}/`` has one safetensors file per stream, and a manifest.  All arms, seeds and
policies read these; none runs the backbone again.  A file appears when its stream is finished, so an interrupted pass
continues after the last finished stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ponderttt.contexts import Context
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.atomic import atomic_path, digest
from ponderttt.files.manifest import read_manifest, start_or_continue, write_manifest
from ponderttt.frozen.chunks import FROM_CORPUS, FrozenChunks, mean_loss
from ponderttt.frozen.model import FrozenModel
from ponderttt.frozen.reading import StreamReader, check_context
from ponderttt.settings.context import ContextConfig

if TYPE_CHECKING:
    from ponderttt.corpus.streams import Stream
    from ponderttt.models.backbone import Backbone

KIND = "hidden"
#: Fields that a file has; the mean loss follows from the losses of tokens.
_STORED = tuple(name for name in FrozenChunks._fields if name not in (*FROM_CORPUS, "loss_frozen"))


def run_frozen_pass(
    backbone: Backbone,
    streams: Sequence[Stream],
    output_dir: Path | str,
    *,
    context: Context,
    config: ContextConfig,
    keep_hidden: bool,
    keep_split: bool = False,
    facts: dict[str, Any],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Read every chunk of every stream once and write what the arms need.

    Args:
        backbone: the frozen model.
        streams: the streams of one corpus.
        output_dir: folder of the pass: one file per stream, then the manifest.
        context: what the backbone attends to while it reads a chunk.
        config: how the context ends.
        keep_hidden: whether to write hidden states (the cache); if not, :func:`open_frozen_pass` recomputes them.
        keep_split: whether to write states at the split layer too, for arms that adapt the blocks after it.
        facts: facts of the manifest about the inputs; other facts restart the pass.
        progress: called with (chunks done, chunks in total).

    Raises:
        PonderTTTError: a chunk with its context is longer than the model's context, or the disk is full.
    """
    from safetensors.numpy import save_file

    check_context(backbone.config, streams[0].input_ids.shape[1], context, config)
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    facts = {
        **facts,
        **context_facts(context, config),
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
            chunks: list[FrozenChunks] = []
            reader = StreamReader(model, stream, context, config)
            for index in range(len(stream.input_ids)):
                previous = chunks[-1].hidden if chunks else None
                chunk = reader.chunk(index, previous)
                # Split states of a whole stream would double the memory of the pass.
                chunks.append(chunk if keep_hidden and keep_split else chunk._replace(split=None))
                progress(done + index + 1, total)
            kept = {"hidden": keep_hidden, "split": keep_hidden and keep_split}
            arrays = {
                name: np.stack([getattr(chunk, name) for chunk in chunks])
                for name in _STORED
                if kept.get(name, True)
            }
            with atomic_path(file) as temporary:
                save_file(arrays, temporary, metadata={"stream_id": stream.stream_id})
        done += len(stream.input_ids)
    rows = {_file_name(number): len(stream.input_ids) for number, stream in enumerate(streams)}
    write_manifest(output_dir, KIND, rows, facts)


def open_frozen_pass(
    folder: Path | str, streams: Sequence[Stream], rebuild: str, recompute: FrozenModel | None = None
) -> tuple[list[FrozenChunks], dict[str, Any]]:
    """Return each stream as the frozen pass wrote it, and the facts of the manifest.

    Args:
        folder: folder of the pass, see :func:`run_frozen_pass`.
        streams: the corpus that it read.
        rebuild: command that repeats the pass, for error messages.
        recompute: the model that recomputes hidden states if they were not kept.

    Raises:
        CorruptFileError: a file is damaged or belongs to another corpus.
        PonderTTTError: hidden states were not kept and there is no model to recompute them.
    """
    from safetensors.numpy import load_file

    folder = Path(folder)
    facts = read_manifest(folder, KIND, rebuild)["facts"]
    opened = []
    for number, stream in enumerate(streams):
        file = folder / _file_name(number)
        if not file.exists():
            raise CorruptFileError(
                f"{file} is missing, so {folder} belongs to another corpus. Rebuild it: {rebuild}"
            )
        arrays = load_file(file)
        count, expected = len(arrays["nll_frozen"]), len(stream.input_ids)
        if count != expected:
            raise CorruptFileError(f"{file} has {count} chunks, its stream {expected}. Rebuild it: {rebuild}")
        if "hidden" not in arrays:
            if recompute is None:
                raise PonderTTTError(
                    f"{folder}: hidden states were not kept (cache: off), and there is no model to recompute them"
                )
            reader = StreamReader(recompute, stream, *context_of(facts))
            states = [reader.states(index) for index in range(expected)]
            arrays["hidden"] = np.stack([state.hidden for state in states])
            if facts["keep_split"]:
                arrays["split"] = np.stack([state.split for state in states])
        mask = np.asarray(stream.mask, bool)
        opened.append(
            FrozenChunks(
                stream_id=stream.stream_id,
                targets=np.asarray(stream.targets),
                mask=mask,
                n_bytes=np.asarray(stream.n_bytes),
                loss_frozen=mean_loss(arrays["nll_frozen"], mask),
                **arrays,
            )
        )
    return opened, facts


def context_facts(context: Context, config: ContextConfig) -> dict[str, Any]:
    """Return what a manifest says of a context; how it ends matters only to one with a cache."""
    ends = {"sinks": config.sinks, "at_limit": config.at_limit} if context.is_cached else {}
    return {"context": str(context), **ends}


def context_of(facts: dict[str, Any]) -> tuple[Context, ContextConfig]:
    """Return the context that a manifest names, and how it ends."""
    ends = {name: facts[name] for name in ("sinks", "at_limit") if name in facts}
    return Context.parse(facts["context"]), ContextConfig(**ends)


def _file_name(number: int) -> str:
    return f"stream-{number:05d}.safetensors"
