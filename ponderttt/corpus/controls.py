"""Build control corpora from the chunks of a corpus: streams with nothing to learn, or with everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int32

from ponderttt.corpus.chunks import chunk_facts, read_chunks, write_chunks
from ponderttt.corpus.streams import Stream, Tokenizer, Tokens, cut_chunks
from ponderttt.errors import PonderTTTError
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST

#: Seed of the random tokens, together with the number of the stream.
SEED = 0


def random_tokens(name: int, length: int, vocab_size: int) -> Int32[np.ndarray, " L"]:
    """Draw tokens uniformly from the vocabulary: the past says nothing about the future."""
    return np.random.default_rng([SEED, name]).integers(0, vocab_size, length, dtype=np.int32)


def repeated(stream: Stream, chunks: int) -> Int32[np.ndarray, " L"]:
    """Repeat the first chunk of a stream ``chunks`` times, plus one token: the past says everything."""
    once = stream.input_ids[0]
    return np.append(np.tile(once, chunks), once[0]).astype(np.int32)


def build_control_chunks(
    kind: Literal["random_tokens", "repeated"],
    corpus: str,
    source_dir: Path | str,
    tokenizer: Tokenizer,
    streams: int,
    chunks: int,
    output_dir: Path | str,
) -> None:
    """Write the chunks of a control corpus, as :func:`ponderttt.corpus.chunks.build_chunks` does.

    Args:
        kind: kind of the control.
        corpus: its name.
        source_dir: chunks of the source corpus.
        tokenizer: tokenizer of these chunks.
        streams: number of streams; for ``repeated`` at most that of the source.
        chunks: number of chunks of each stream.
        output_dir: folder of the chunks.

    Raises:
        PonderTTTError: the source has too few streams, or the disk is full.
        CorruptFileError: the source is damaged.
    """
    again = rebuild(Path(source_dir) / MANIFEST)
    facts, source = chunk_facts(source_dir, again), read_chunks(source_dir, again)
    size = facts["chunk_size"]
    if kind == "repeated" and len(source) < streams:
        raise PonderTTTError(
            f"corpus {corpus}: its source {facts['corpus']} has {len(source)} streams; lower max_streams to that"
        )
    made = []
    for number in range(streams):
        if kind == "repeated":
            name, ids = f"repeated-{source[number].stream_id}", repeated(source[number], chunks)
        else:
            name, ids = f"random-{number}", random_tokens(number, chunks * size + 1, facts["vocab_size"])
        n_bytes = np.asarray(tokenizer.token_bytes(ids.tolist()), np.int32)
        tokens = Tokens(ids, n_bytes, np.zeros(1, np.int32), (name,))
        made.append(cut_chunks(tokens, size, facts["pad_id"], name, source[0].language))
    write_chunks(made, size, output_dir, lambda: _facts(facts, corpus, kind, made))


def _facts(source: dict[str, Any], corpus: str, kind: str, made: Sequence[Stream]) -> dict[str, Any]:
    same = ("chunk_size", "tokenizer", "vocab_size", "pad_id", "eot_id")
    return {
        "corpus": corpus,
        "control": kind,
        "source": source["corpus"],
        **{name: source[name] for name in same},
        "streams": {stream.stream_id: stream.n_chunks for stream in made},
        "span_seed": source["span_seed"],
        "starts": {stream.stream_id: stream.document_paths[0] for stream in made},
        "tokens": int(sum(stream.mask.sum() for stream in made)),
        "bytes": int(sum(stream.n_bytes.sum() for stream in made)),
        "short_streams": {},
        "not_lossless": {},
        "shards": source["shards"],
    }
