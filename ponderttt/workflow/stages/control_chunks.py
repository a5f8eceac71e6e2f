"""Stage ``control_chunks``: a corpus of random tokens or of repeats, made from another corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ponderttt.corpus.controls import build_control_chunks
from ponderttt.files.folder import Folder
from ponderttt.settings.mapping import settings
from ponderttt.workflow.jobs import Job
from ponderttt.workflow.stages.chunks import tokenizer_of


@settings
class Settings:
    """A control corpus: its name, its kind, and how many streams of how many chunks it has."""

    name: str
    kind: Literal["random_tokens", "repeated"]
    streams: int
    chunks: int


@dataclass(frozen=True)
class Inputs:
    """The converted model, and the chunks of the source corpus under its tokenizer."""

    model: Folder
    source: Folder


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``data/chunks/{model}/{corpus}/``; see :func:`ponderttt.corpus.controls.build_control_chunks`."""
    build_control_chunks(
        settings.kind,
        settings.name,
        inputs.source,
        tokenizer_of(inputs.model),
        settings.streams,
        settings.chunks,
        job.folder,
    )
