"""Build a mixed corpus: streams that change between repositories, generated code, documentation and data.

What was learned from one segment can do harm in the next.  Segments have whole chunks, so every chunk reads one segment; the
last token of each but the last segment is the end-of-text token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from ponderttt.corpus.chunks import chunk_facts, read_chunks, write_chunks
from ponderttt.corpus.streams import Stream, Tokenizer, Tokens, cut_chunks
from ponderttt.errors import PonderTTTError
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST


@dataclass(frozen=True)
class Source:
    """A stream of one of the corpora."""

    corpus: str
    stream: Stream

    @property
    def name(self) -> str:
        """Corpus and stream, for paths and for the order of draws."""
        return f"{self.corpus}/{self.stream.stream_id}"


@dataclass(frozen=True)
class Segment:
    """A part of a mixed stream, from one source."""

    part: str
    source: Source


def build_mixed_chunks(
    corpus: str,
    language: str,
    parts: Mapping[str, Sequence[str]],
    folders: Mapping[str, Path | str],
    tokenizer: Tokenizer,
    streams: int,
    chunks: int,
    segment_chunks: int,
    span_seed: int,
    output_dir: Path | str,
) -> dict[str, Any]:
    """Write the chunks of a mixed corpus, as :func:`ponderttt.corpus.chunks.build_chunks` does.

    Every stream has ``chunks / segment_chunks`` segments: one of each part in an order that is drawn for the stream, and again
    from the first.  A segment is the start of a source stream.  No source is used twice, and no repository twice in one stream.

    Args:
        corpus: its name.
        language: its language in the records.
        parts: part → names of the corpora that give its segments.
        folders: name of a corpus → its chunks under the tokenizer.
        tokenizer: tokenizer of these chunks.
        streams: number of streams.
        chunks: chunks of each stream, a multiple of ``segment_chunks``.
        segment_chunks: chunks of each segment.
        span_seed: seed of all draws.
        output_dir: folder of the chunks.

    Returns:
        The manifest's facts, those of :func:`build_chunks`, where ``shards`` has the digests of all corpora, and ``segments``:
        stream → list of ``start`` (in tokens), ``chunk`` (number of its first), ``part``, ``corpus`` and ``source`` (stream).

    Raises:
        PonderTTTError: a part has too few streams of the length of a segment, or the disk is full.
        CorruptFileError: the chunks of a corpus are damaged.
    """
    facts = {name: chunk_facts(folder, rebuild(Path(folder) / MANIFEST)) for name, folder in folders.items()}
    first = next(iter(facts.values()))
    size, length = first["chunk_size"], segment_chunks * first["chunk_size"]
    sources = {
        name: [Source(name, stream) for stream in read_chunks(folder, rebuild(Path(folder) / MANIFEST))]
        for name, folder in folders.items()
    }
    pools = {
        part: [
            source
            for name in names
            for source in sources[name]
            # One token more: the target of the last chunk.
            if source.stream.mask.sum() >= length
        ]
        for part, names in parts.items()
    }
    made, table = [], {}
    for number, segments in enumerate(
        _drawn(corpus, pools, streams, chunks // segment_chunks, length, span_seed)
    ):
        name = f"{corpus}-{number}"
        tokens = _joined(segments, length, tokenizer)
        made.append(cut_chunks(tokens, size, tokenizer.pad_id, name, language))
        table[name] = [
            {
                "start": length * place,
                "chunk": segment_chunks * place,
                "part": segment.part,
                "corpus": segment.source.corpus,
                "source": segment.source.stream.stream_id,
            }
            for place, segment in enumerate(segments)
        ]
    same = ("chunk_size", "tokenizer", "vocab_size", "pad_id", "eot_id")
    found = {
        "corpus": corpus,
        **{name: first[name] for name in same},
        "streams": {stream.stream_id: stream.n_chunks for stream in made},
        "span_seed": span_seed,
        "starts": {stream.stream_id: stream.document_paths[0] for stream in made},
        "tokens": int(sum(stream.mask.sum() for stream in made)),
        "bytes": int(sum(stream.n_bytes.sum() for stream in made)),
        "short_streams": {},
        "not_lossless": {},
        "shards": {name: fact["shards"] for name, fact in facts.items()},
        "segments": table,
    }
    return write_chunks(made, size, output_dir, lambda: found)


def _drawn(
    corpus: str,
    pools: Mapping[str, Sequence[Source]],
    streams: int,
    segments: int,
    length: int,
    span_seed: int,
) -> Iterator[list[Segment]]:
    """Yield the segments of each stream."""
    left = {
        part: sorted(pool, key=lambda source: _rank(span_seed, part, source.name))
        for part, pool in pools.items()
    }
    used: set[str] = set()
    for number in range(streams):
        order = sorted(pools, key=lambda part: _rank(span_seed, number, part))
        chosen: list[Segment] = []
        for place in range(segments):
            part = order[place % len(order)]
            here = {segment.source.stream.stream_id for segment in chosen}
            source = next(
                (s for s in left[part] if s.name not in used and s.stream.stream_id not in here), None
            )
            if source is None:
                raise PonderTTTError(
                    f"corpus {corpus}: its part {part} has {len(pools[part])} streams of at least {length + 1} tokens, too few for "
                    f"{streams} mixed streams. Lower corpora.{corpus}.max_streams or segment_chunks, or name more corpora in "
                    f"corpora.{corpus}.parts.{part}."
                )
            used.add(source.name)
            chosen.append(Segment(part, source))
        yield chosen


def _rank(*names: str | int) -> str:
    """Return a number that orders names at random, the same on every machine."""
    return hashlib.sha256("/".join(map(str, names)).encode()).hexdigest()


def _joined(segments: Sequence[Segment], length: int, tokenizer: Tokenizer) -> Tokens:
    """Return the tokens of a stream: ``length`` of each segment, and one more at the end."""
    ids: list[Int32[np.ndarray, " L"]] = []
    starts: list[int] = []
    paths: list[str] = []
    for place, segment in enumerate(segments):
        stream = segment.source.stream
        last = place == len(segments) - 1
        read = length + 1 if last else length - 1
        # The first chunks, and the target of the last.
        flat = np.append(stream.input_ids.reshape(-1)[:length], stream.targets.reshape(-1)[length - 1])
        ids.append(flat[:read] if last else np.append(flat[:read], tokenizer.eot_id).astype(np.int32))
        for start, path in zip(stream.document_starts.tolist(), stream.document_paths, strict=True):
            if start < read:
                starts.append(place * length + start)
                paths.append(f"{segment.source.name}/{path}")
    joined = np.concatenate(ids)
    n_bytes = np.asarray(tokenizer.token_bytes(joined.tolist()), np.int32)
    return Tokens(joined, n_bytes, np.asarray(starts, np.int32), tuple(paths))
