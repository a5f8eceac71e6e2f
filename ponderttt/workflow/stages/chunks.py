"""Stage ``chunks``: a corpus cut into chunks under the tokenizer of a model."""

from __future__ import annotations

from pathlib import Path

from ponderttt.corpus.chunks import build_chunks
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST, read_manifest
from ponderttt.models import tokenizer
from ponderttt.models.safetensors_file import TOKENIZER
from ponderttt.models.tokenizer import Tokenizer
from ponderttt.workflow.entry import Progress


def make_chunks(
    model_dir: Path | str,
    shards_dir: Path | str,
    output_dir: Path | str,
    chunk_size: int,
    chunks_per_stream: int | None,
    progress: Progress,
) -> None:
    """Write ``data/chunks/{model}/{corpus}/``.

    Args:
        model_dir: the converted model, whose tokenizer is used.
        shards_dir: the corpus.
        output_dir: folder of the chunks.
        chunk_size: tokens per chunk.
        chunks_per_stream: keep the first so many of each stream; ``None`` is all.
        progress: of the job.
    """
    reader = tokenizer_of(model_dir)
    build_chunks(shards_dir, reader, chunk_size, output_dir, chunks_per_stream, progress=progress)


def tokenizer_of(model_dir: Path | str) -> Tokenizer:
    """The tokenizer of a converted model."""
    folder = Path(model_dir)
    facts = read_manifest(folder, "model", rebuild(folder / MANIFEST), verify=False)["facts"]
    return tokenizer.load(folder / TOKENIZER, facts["vocab_size"])
