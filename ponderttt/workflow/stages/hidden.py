"""Stage ``hidden``: the frozen pass of a model over a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ponderttt.contexts import Context
from ponderttt.corpus.chunks import read_chunks
from ponderttt.files.atomic import digest
from ponderttt.files.commands import rebuild
from ponderttt.files.folder import Folder
from ponderttt.files.manifest import finished
from ponderttt.frozen.frozen_pass import run_frozen_pass
from ponderttt.models.weights import open_configured
from ponderttt.settings.context import ContextConfig
from ponderttt.settings.mapping import settings
from ponderttt.settings.model import ModelConfig
from ponderttt.workflow.entry import compilation_cache
from ponderttt.workflow.jobs import Job

#: Bytes of a cached hidden state, which is float32.
ELEMENT_BYTES = 4


@settings
class Settings:
    """Context and cache of a frozen pass.

    Attributes:
        model: dtype and split of the backbone.
        context: what the backbone attends to while it reads a chunk.
        ends: how the context ends.
        keep_split: whether states at the split layer are cached too, for arms that adapt the blocks after it.
        cache: whether hidden states are cached.
        cache_limit_bytes: limit for ``auto``.
    """

    model: ModelConfig
    context: str
    ends: ContextConfig
    keep_split: bool
    cache: Literal["on", "off", "auto"]
    cache_limit_bytes: int


@dataclass(frozen=True)
class Inputs:
    """The converted model, and the corpus in chunks."""

    model: Folder
    chunks: Folder


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``data/hidden/{model}/{corpus}/{context}/``; continue a pass that was interrupted."""
    compilation_cache(job.place.programs)
    backbone = open_configured(settings.model, inputs.model, rebuild(inputs.model.manifest))
    streams = read_chunks(inputs.chunks, rebuild(inputs.chunks.manifest))
    chunks = sum(stream.n_chunks for stream in streams)
    width, size = backbone.config.width, streams[0].input_ids.shape[1]
    limit, split = settings.cache_limit_bytes, settings.keep_split
    run_frozen_pass(
        backbone,
        streams,
        job.folder,
        context=Context.parse(settings.context),
        config=settings.ends,
        keep_hidden=keeps_hidden(settings.cache, limit, chunks, size, width, keep_split=split),
        keep_split=split,
        facts={"made_from": digest(job.made_from)},
        progress=job.progress,
    )
    finished(job.folder.path)


def keeps_hidden(
    cache: str, limit_bytes: int, chunks: int, chunk_size: int, width: int, *, keep_split: bool = False
) -> bool:
    """Return whether states of so many chunks are cached: ``on``, ``off``, or ``auto`` by their size.

    With ``keep_split`` each token has two: its final state and its state at the split layer.
    """
    size = chunks * chunk_size * width * ELEMENT_BYTES * (2 if keep_split else 1)
    return cache == "on" or (cache == "auto" and size <= limit_bytes)
