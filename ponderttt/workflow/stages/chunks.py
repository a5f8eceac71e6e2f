"""Stage ``chunks``: a corpus cut into chunks under the tokenizer of a model."""

from __future__ import annotations

from dataclasses import dataclass

from ponderttt.corpus.chunks import build_chunks
from ponderttt.files.commands import rebuild
from ponderttt.files.folder import Folder
from ponderttt.files.manifest import read_manifest
from ponderttt.models import tokenizer
from ponderttt.models.safetensors_file import TOKENIZER
from ponderttt.models.tokenizer import Tokenizer
from ponderttt.settings.mapping import settings
from ponderttt.workflow.jobs import Job


@settings
class Settings:
    """Sizes of chunks and streams.

    Attributes:
        chunk_size: tokens per chunk.
        chunks_per_stream: number of chunks to keep of each stream; None for all.
        span_seed: seed that draws where each stream starts; None starts it at its first file.
    """

    chunk_size: int
    chunks_per_stream: int | None
    span_seed: int | None


@dataclass(frozen=True)
class Inputs:
    """The converted model, whose tokenizer is used, and the corpus."""

    model: Folder
    shards: Folder


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``data/chunks/{model}/{corpus}/``."""
    build_chunks(
        inputs.shards,
        tokenizer_of(inputs.model),
        settings.chunk_size,
        job.folder,
        settings.chunks_per_stream,
        span_seed=settings.span_seed,
        progress=job.progress,
    )


def tokenizer_of(model: Folder) -> Tokenizer:
    """Return the tokenizer of a converted model."""
    facts = read_manifest(model, "model", rebuild(model.manifest), verify=False)["facts"]
    return tokenizer.load(model.path / TOKENIZER, facts["vocab_size"])
