"""Stage ``mixed_chunks``: streams made of segments of other corpora."""

from __future__ import annotations

from dataclasses import dataclass

from ponderttt.corpus.mixed import build_mixed_chunks
from ponderttt.files.folder import Folder
from ponderttt.settings.mapping import settings
from ponderttt.workflow.jobs import Job
from ponderttt.workflow.stages.chunks import tokenizer_of


@settings
class Settings:
    """A mixed corpus.

    Attributes:
        name: its name in the configuration.
        language: its language.
        parts: part → names of the corpora that give its segments.
        corpora: the corpora of all parts, in the order of the inputs.
        streams: number of streams.
        chunks: chunks of each stream.
        segment_chunks: chunks of each segment.
        span_seed: seed of all draws.
    """

    name: str
    language: str
    parts: dict[str, tuple[str, ...]]
    corpora: tuple[str, ...]
    streams: int
    chunks: int
    segment_chunks: int
    span_seed: int


@dataclass(frozen=True)
class Inputs:
    """The converted model, and the chunks of the corpora under its tokenizer."""

    model: Folder
    sources: tuple[Folder, ...]


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``data/chunks/{model}/{corpus}/``; see :func:`ponderttt.corpus.mixed.build_mixed_chunks`."""
    build_mixed_chunks(
        settings.name,
        settings.language,
        settings.parts,
        dict(zip(settings.corpora, inputs.sources, strict=True)),
        tokenizer_of(inputs.model),
        settings.streams,
        settings.chunks,
        settings.segment_chunks,
        settings.span_seed,
        job.folder,
    )
