"""Build, write and read chunks: the streams of a corpus under one tokenizer, as Parquet with a manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ponderttt.corpus.files import SourceFile
from ponderttt.corpus.shard_files import iterate_shards, read_parquet, shards_digest
from ponderttt.corpus.sources import Progress, silent
from ponderttt.corpus.spans import drawn_file, tokenize_span
from ponderttt.corpus.streams import Document, Stream, Tokenizer, cut_chunks, tokenize_documents
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.commands import rebuild as rebuild_command
from ponderttt.files.manifest import MANIFEST, read_manifest, write_manifest
from ponderttt.files.staging import staged_folder

CHUNKS_FILE = "chunks-00000.parquet"
COLUMNS = (
    "stream_id",
    "chunk_index",
    "language",
    "input_ids",
    "targets",
    "mask",
    "n_bytes",
    "document_starts",
    "document_paths",
)


def build_chunks(
    shards_dir: Path | str,
    tokenizer: Tokenizer,
    chunk_size: int,
    output_dir: Path | str,
    max_chunks_per_stream: int | None = None,
    min_chunks_per_stream: int = 2,
    span_seed: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Tokenise and cut the shards of a corpus into ``output_dir`` with a manifest.

    Args:
        shards_dir: shards from :func:`ponderttt.corpus.shards.build_shards`.
        tokenizer: tokenizer of the model that will read the chunks.
        chunk_size: tokens per chunk.
        output_dir: folder of the chunks.
        max_chunks_per_stream: number of chunks to keep of each stream; other files are not tokenised.
        min_chunks_per_stream: drop and count shorter streams; one chunk alone cannot show adaptation.
        span_seed: seed that draws the file where each stream starts; None starts every stream at its first file.  Streams
            without a limit are whole repositories, and start there too.
        progress: called for every stream.

    Returns:
        The manifest's facts: ``corpus``, ``chunk_size``, ``tokenizer``, ``vocab_size``, ``pad_id``, ``eot_id``, ``streams``
        (stream → number of chunks), ``span_seed``, ``starts`` (stream → path of its first file), ``tokens`` and ``bytes``
        (scored), ``short_streams`` (stream → number of chunks), ``not_lossless`` (stream → path left out → reason), ``shards``
        (digest).

    Raises:
        CorruptFileError: the shards differ from their manifest.
        PonderTTTError: no stream is long enough, the pad id is in the vocabulary, or the disk is full.
    """
    if tokenizer.pad_id < tokenizer.vocab_size:
        raise PonderTTTError(
            f"the pad id must be at least the number of tokens in the vocabulary, {tokenizer.vocab_size}, "
            f"got {tokenizer.pad_id}"
        )
    rebuild = rebuild_command(Path(shards_dir) / MANIFEST)
    shards = read_manifest(shards_dir, "shards", rebuild, verify=False)["facts"]
    corpus, total = shards["corpus"], shards["repositories_kept"]
    # One token more than the chunks read: the target of the last.
    max_tokens = None if max_chunks_per_stream is None else max_chunks_per_stream * chunk_size + 1
    sizes: dict[str, int] = {}
    starts: dict[str, str] = {}
    short: dict[str, int] = {}
    not_lossless: dict[str, Mapping[str, str]] = {}
    scored = n_bytes = 0

    def streams() -> Iterator[Stream]:
        nonlocal scored, n_bytes
        for done, (name, files) in enumerate(_repositories(shards_dir, rebuild), 1):
            documents = [Document(file.path, file.content) for file in files]
            if span_seed is None or max_tokens is None:
                tokens = tokenize_documents(documents, tokenizer, max_tokens)
            else:
                drawn = drawn_file(span_seed, name, len(documents))
                tokens = tokenize_span(documents, tokenizer, max_tokens, drawn)
            stream = cut_chunks(tokens, chunk_size, tokenizer.pad_id, name, files[0].language)
            if tokens.not_lossless:
                not_lossless[name] = tokens.not_lossless
            if stream.n_chunks < min_chunks_per_stream:
                short[name] = stream.n_chunks
            else:
                sizes[name], starts[name] = stream.n_chunks, stream.document_paths[0]
                scored, n_bytes = scored + int(stream.mask.sum()), n_bytes + int(stream.n_bytes.sum())
                yield stream
            progress(done, total, f"chunked {name}")
        if not sizes:
            lost = [(path, why) for paths in not_lossless.values() for path, why in paths.items()]
            left_out = f" {len(lost)} files were left out; {lost[0][0]}: {lost[0][1]}." if lost else ""
            raise PonderTTTError(
                f"corpus {corpus}: none of its {total} streams has {min_chunks_per_stream} chunks of "
                f"{chunk_size} tokens. Give it larger repositories, or a smaller chunk_size.{left_out}"
            )

    def facts() -> dict[str, Any]:
        return {
            "corpus": corpus,
            "chunk_size": chunk_size,
            "tokenizer": tokenizer.digest,
            "vocab_size": tokenizer.vocab_size,
            "pad_id": tokenizer.pad_id,
            "eot_id": tokenizer.eot_id,
            "streams": sizes,
            "span_seed": span_seed,
            "starts": starts,
            "tokens": scored,
            "bytes": n_bytes,
            "short_streams": short,
            "not_lossless": not_lossless,
            "shards": shards_digest(shards_dir, rebuild),
        }

    return write_chunks(streams(), chunk_size, output_dir, facts)


def _repositories(shards_dir: Path | str, rebuild: str) -> Iterator[tuple[str, list[SourceFile]]]:
    """Yield repositories in order with their files by path; one is in memory at a time."""
    files = (file for group in iterate_shards(shards_dir, rebuild) for file in group)
    for name, group in groupby(files, lambda file: file.repo_name):
        yield name, sorted(group, key=lambda file: file.path)


def write_chunks(
    streams: Iterable[Stream],
    chunk_size: int,
    output_dir: Path | str,
    facts: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Write streams in order, one row per chunk and one row group per stream; all or nothing.

    Args:
        streams: streams, consumed one at a time.
        chunk_size: tokens per chunk.
        output_dir: folder of the chunks.
        facts: returns the manifest's facts; called after all streams are written.

    Returns:
        The facts.

    Raises:
        PonderTTTError: the disk is full; earlier files in ``output_dir`` are untouched.
    """
    import pyarrow.parquet as pq

    schema, rows = _schema(chunk_size), 0
    with staged_folder(output_dir, "chunks-*.parquet") as staged:
        with pq.ParquetWriter(staged / CHUNKS_FILE, schema, compression="zstd") as writer:
            for stream in streams:
                writer.write_table(_to_table(stream, schema))
                rows += stream.n_chunks
        found = facts()
        write_manifest(staged, "chunks", {CHUNKS_FILE: rows}, found)
    return found


def chunk_facts(folder: Path | str, rebuild: str) -> dict[str, Any]:
    """Return the facts of a folder of chunks, see :func:`build_chunks`; reads only the manifest.

    Raises:
        CorruptFileError: the manifest is missing or of another kind.
    """
    facts: dict[str, Any] = read_manifest(folder, "chunks", rebuild, verify=False)["facts"]
    return facts


def read_chunks(folder: Path | str, rebuild: str) -> list[Stream]:
    """Read the streams of a corpus, in the order of writing.

    Args:
        folder: folder of the chunks.
        rebuild: the command that rebuilds the folder, for the error message.

    Raises:
        CorruptFileError: the manifest is missing, or the file differs from it or is not readable.
    """
    manifest = read_manifest(folder, "chunks", rebuild)
    path = Path(folder) / CHUNKS_FILE
    if CHUNKS_FILE not in manifest["files"]:
        raise CorruptFileError(f"{path}: not in its manifest. Rebuild it: {rebuild}")
    return list(_from_table(read_parquet(path, COLUMNS, rebuild), manifest["facts"]["chunk_size"]))


def _schema(chunk_size: int) -> Any:
    import pyarrow as pa

    kinds = {
        "stream_id": pa.string(),
        "chunk_index": pa.int32(),
        "language": pa.string(),
        "input_ids": pa.list_(pa.int32(), chunk_size),
        "targets": pa.list_(pa.int32(), chunk_size),
        "mask": pa.list_(pa.bool_(), chunk_size),
        "n_bytes": pa.int32(),
        "document_starts": pa.list_(pa.int32()),
        "document_paths": pa.list_(pa.string()),
    }
    return pa.schema([pa.field(name, kinds[name], nullable=False) for name in COLUMNS])


def _to_table(stream: Stream, schema: Any) -> Any:
    import pyarrow as pa

    n_chunks, chunk_size = stream.input_ids.shape
    # A document belongs to the chunk that reads its first token.  No chunk reads the last token of a stream, so a
    # document that starts there belongs to the last chunk.
    chunk_of = np.minimum(stream.document_starts // chunk_size, n_chunks - 1)
    starts: list[list[int]] = [[] for _ in range(n_chunks)]
    paths: list[list[str]] = [[] for _ in range(n_chunks)]
    for chunk, start, path in zip(chunk_of, stream.document_starts, stream.document_paths, strict=True):
        starts[chunk].append(int(start))
        paths[chunk].append(path)

    def fixed(values: np.ndarray) -> Any:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), chunk_size)

    return pa.table(
        {
            "stream_id": [stream.stream_id] * n_chunks,
            "chunk_index": pa.array(range(n_chunks), pa.int32()),
            "language": [stream.language] * n_chunks,
            "input_ids": fixed(stream.input_ids),
            "targets": fixed(stream.targets),
            "mask": fixed(stream.mask),
            "n_bytes": stream.n_bytes,
            "document_starts": pa.array(starts, pa.list_(pa.int32())),
            "document_paths": pa.array(paths, pa.list_(pa.string())),
        },
        schema=schema,
    )


def _from_table(table: Any, chunk_size: int) -> Iterator[Stream]:
    def matrix(name: str) -> np.ndarray:
        flat = table.column(name).combine_chunks().flatten()
        return flat.to_numpy(zero_copy_only=False).reshape(-1, chunk_size)

    arrays = {name: matrix(name) for name in ("input_ids", "targets", "mask")}
    n_bytes = table.column("n_bytes").to_numpy()
    names = table.column("stream_id").to_pylist()
    languages = table.column("language").to_pylist()
    starts = table.column("document_starts").to_pylist()
    paths = table.column("document_paths").to_pylist()
    for name, rows in groupby(range(len(names)), key=names.__getitem__):
        chunk_rows = list(rows)
        span = slice(chunk_rows[0], chunk_rows[-1] + 1)
        yield Stream(
            stream_id=name,
            language=languages[span.start],
            input_ids=arrays["input_ids"][span],
            targets=arrays["targets"][span],
            mask=arrays["mask"][span],
            n_bytes=n_bytes[span],
            document_starts=np.asarray([start for row in starts[span] for start in row], np.int32),
            document_paths=tuple(path for row in paths[span] for path in row),
        )
