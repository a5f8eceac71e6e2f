"""Stage ``control_chunks``: a corpus of random tokens or of repeats, made from another corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ponderttt.corpus.controls import build_control_chunks
from ponderttt.workflow.stages.chunks import tokenizer_of


def make_control_chunks(
    kind: Literal["random_tokens", "repeated"],
    corpus: str,
    model_dir: Path | str,
    source_dir: Path | str,
    output_dir: Path | str,
    streams: int,
    chunks: int,
) -> None:
    """Write ``data/chunks/{model}/{corpus}/``; see :func:`ponderttt.corpus.controls.build_control_chunks`."""
    build_control_chunks(kind, corpus, source_dir, tokenizer_of(model_dir), streams, chunks, output_dir)
