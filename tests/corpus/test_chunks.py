"""Every token of a stream except the first is scored exactly once, and bytes add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponderttt.corpus.chunks import CHUNKS_FILE, build_chunks, chunk_facts, read_chunks
from ponderttt.corpus.shards import build_shards
from ponderttt.corpus.streams import Document, Stream, Tokens, cut_chunks, tokenize_documents
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.manifest import write_manifest
from ponderttt.settings.experiment import CorpusConfig

REBUILD = "snakemake chunks"
PAD = 1_000


def tokens_of(ids: list[int], n_bytes: list[int]) -> Tokens:
    starts = np.array([0] if ids else [], np.int32)
    return Tokens(np.array(ids, np.int32), np.array(n_bytes, np.int32), starts, ("a.py",) * len(starts))


def stream_of(
    documents: Sequence[Document], tokenizer: Any, chunk_size: int, name: str, max_chunks: int | None = None
) -> Stream:
    # One token more than the chunks read: the target of the last.
    most = None if max_chunks is None else max_chunks * chunk_size + 1
    return cut_chunks(
        tokenize_documents(documents, tokenizer, most), chunk_size, tokenizer.pad_id, name, "Python"
    )


def scored(stream: Stream) -> list[int]:
    return stream.targets[stream.mask].tolist()


sequences = st.lists(st.tuples(st.integers(0, PAD - 1), st.integers(0, 9)), max_size=70)


@given(sequence=sequences, chunk_size=st.integers(1, 17))
def test_every_token_but_the_first_is_scored_exactly_once_and_in_order(
    sequence: list[tuple[int, int]], chunk_size: int
) -> None:
    ids, sizes = [token for token, _ in sequence], [size for _, size in sequence]
    stream = cut_chunks(tokens_of(ids, sizes), chunk_size, PAD, "s", "Python")
    assert scored(stream) == ids[1:]
    assert stream.input_ids[stream.mask].tolist() == ids[:-1]
    assert stream.n_bytes.sum() == sum(sizes[1:])


@given(sequence=sequences, chunk_size=st.integers(1, 17))
def test_chunk_c_reads_its_tokens_and_is_scored_on_their_successors(
    sequence: list[tuple[int, int]], chunk_size: int
) -> None:
    ids, sizes = [token for token, _ in sequence], [size for _, size in sequence]
    stream = cut_chunks(tokens_of(ids, sizes), chunk_size, PAD, "s", "Python")
    for c in range(stream.n_chunks):
        n = int(stream.n_tokens[c])
        first = c * chunk_size
        assert n >= 1, "no chunk is all padding"
        assert n == chunk_size or c == stream.n_chunks - 1, "only the last chunk is padded"
        assert stream.mask[c].tolist() == [True] * n + [False] * (chunk_size - n)
        assert stream.input_ids[c, :n].tolist() == ids[first : first + n]
        assert stream.targets[c, :n].tolist() == ids[first + 1 : first + n + 1]
        assert (stream.input_ids[c, n:] == PAD).all() and (stream.targets[c, n:] == PAD).all()
        assert stream.n_bytes[c] == sum(sizes[first + 1 : first + n + 1])


texts = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(documents=texts, chunk_size=st.integers(1, 40))
def test_bytes_of_a_stream_are_those_of_its_text_but_the_first_tokens(
    documents: list[str], chunk_size: int, tokenizer: Any
) -> None:
    named = [Document(f"{i}.py", text) for i, text in enumerate(documents)]
    stream = stream_of(named, tokenizer, chunk_size, "s")
    tokens = tokenize_documents(named, tokenizer)
    assert not tokens.not_lossless
    total = sum(len(text.encode()) for text in documents)
    assert tokens.n_bytes.sum() == total
    assert stream.n_bytes.sum() == total - tokens.n_bytes[0]
    # The end-of-text token is between documents, and nowhere else.
    expected = [tokenizer.encode(text) for text in documents]
    whole: list[int] = []
    for encoded in expected:
        whole += ([tokenizer.eot_id] if whole else []) + encoded
    assert tokens.ids.tolist() == whole
    for start, encoded in zip(tokens.document_starts, expected, strict=True):
        assert whole[start : start + len(encoded)] == encoded


@settings(deadline=None, max_examples=60)
@given(documents=texts, chunk_size=st.integers(1, 12), max_chunks=st.integers(1, 8))
def test_a_shortened_stream_is_a_prefix_of_the_whole_one(
    documents: list[str], chunk_size: int, max_chunks: int, tokenizer: Any
) -> None:
    named = [Document(f"{i}.py", text) for i, text in enumerate(documents)]
    whole = stream_of(named, tokenizer, chunk_size, "s")
    short = stream_of(named, tokenizer, chunk_size, "s", max_chunks)
    assert short.n_chunks == min(max_chunks, whole.n_chunks)
    for name in ("input_ids", "targets", "mask", "n_bytes"):
        assert np.array_equal(getattr(short, name), getattr(whole, name)[:max_chunks]), name
    n_read = max_chunks * chunk_size + 1
    inside = [start for start in whole.document_starts if start < n_read]
    assert short.document_starts.tolist() == inside
    assert short.document_paths == whole.document_paths[: len(inside)]


def test_files_after_the_last_chunk_are_not_tokenised(tokenizer: Any) -> None:
    seen: list[str] = []

    class Watching:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def encode(self, text: str) -> list[int]:
            seen.append(text)
            return tokenizer.encode(text)

    documents = [Document(f"{i}.py", f"value_{i} = {i}\n" * 20) for i in range(10)]
    stream_of(documents, Watching(), 16, "s", max_chunks=2)
    assert seen == [documents[0].text]


def test_a_document_that_the_tokenizer_loses_bytes_of_is_left_out_and_named(tokenizer: Any) -> None:
    documents = [
        Document("a.py", "a = 1\n"),
        Document("b.py", "stop = '<|endoftext|>'\n"),
        Document("c.py", "c = 3\n"),
    ]
    # This tokenizer reads these words as the special token, which would end the document too early.
    assert tokenizer.eot_id in tokenizer.encode(documents[1].text)
    tokens = tokenize_documents(documents, tokenizer)
    reason = "contains the model's end-of-text token, which the tokenizer recognises in a text"
    assert tokens.not_lossless == {"b.py": reason}
    assert tokens.document_paths == ("a.py", "c.py")
    assert tokens.ids.tolist().count(tokenizer.eot_id) == 1


def test_a_stream_too_short_to_score_has_no_chunk() -> None:
    for ids in ([], [5]):
        stream = cut_chunks(tokens_of(ids, [1] * len(ids)), 8, PAD, "s", "Python")
        assert (stream.n_chunks, stream.input_ids.shape, stream.n_bytes.shape) == (0, (0, 8), (0,))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, code_files: list[Path]) -> Path:
    """Shards of three repositories: several files, one file, one tiny file."""
    top = tmp_path_factory.mktemp("corpus")
    for name, files in {"big": code_files[:4], "single": code_files[4:5], "tiny": []}.items():
        (top / "src" / name).mkdir(parents=True)
        for path in files:
            (top / "src" / name / path.name).write_text(path.read_text())
    (top / "src" / "tiny" / "x.py").write_text(
        "def tiny(value):\n    return value\n\n\nprint(tiny(1), tiny(2), tiny(3))\n"
    )
    config = CorpusConfig(
        "files", "Python", "heldout", path=str(top / "src"), license="MIT", single_repository=False
    )
    build_shards(config, "mine", top, top / "shards")
    return top / "shards"


def test_chunks_survive_the_disk(
    tmp_path: Path, shards: Path, tokenizer: Any, code_files: list[Path]
) -> None:
    facts = build_chunks(shards, tokenizer, 64, tmp_path / "chunks")
    streams = read_chunks(tmp_path / "chunks", REBUILD)
    expected = [
        stream_of([Document(p.name, p.read_text()) for p in files], tokenizer, 64, name)
        for name, files in (("big", code_files[:4]), ("single", code_files[4:5]))
    ]
    assert [stream.stream_id for stream in streams] == ["big", "single"]
    for found, wanted in zip(streams, expected, strict=True):
        assert (found.stream_id, found.language, found.document_paths) == (
            wanted.stream_id,
            wanted.language,
            wanted.document_paths,
        )
        for name in ("input_ids", "targets", "mask", "n_bytes", "document_starts"):
            a, b = getattr(found, name), getattr(wanted, name)
            assert a.dtype == b.dtype and np.array_equal(a, b), name
    assert facts["streams"] == {stream.stream_id: stream.n_chunks for stream in expected}
    assert facts["tokens"] == sum(int(stream.mask.sum()) for stream in expected)
    assert facts["bytes"] == sum(int(stream.n_bytes.sum()) for stream in expected)
    assert facts["short_streams"] == {"tiny": 1}
    assert (facts["pad_id"], facts["eot_id"]) == (tokenizer.pad_id, tokenizer.eot_id)
    assert (facts["chunk_size"], facts["tokenizer"], facts["vocab_size"]) == (
        64,
        "tiny",
        tokenizer.vocab_size,
    )
    assert chunk_facts(tmp_path / "chunks", REBUILD) == facts


@pytest.mark.parametrize("limit", [2, 5])
def test_the_number_of_chunks_per_stream_can_be_limited(
    tmp_path: Path, shards: Path, tokenizer: Any, limit: int
) -> None:
    build_chunks(shards, tokenizer, 64, tmp_path / "whole")
    build_chunks(shards, tokenizer, 64, tmp_path / "short", max_chunks_per_stream=limit)
    whole, short = read_chunks(tmp_path / "whole", REBUILD), read_chunks(tmp_path / "short", REBUILD)
    for a, b in zip(whole, short, strict=True):
        assert b.n_chunks == limit
        assert np.array_equal(a.input_ids[:limit], b.input_ids)
        assert b.mask.all()


def test_the_pad_id_is_no_token_and_never_read_where_something_is_scored(
    tmp_path: Path, shards: Path, tokenizer: Any
) -> None:
    build_chunks(shards, tokenizer, 64, tmp_path / "chunks")
    for stream in read_chunks(tmp_path / "chunks", REBUILD):
        assert ((stream.input_ids == tokenizer.pad_id) == ~stream.mask).all()
        assert ((stream.targets == tokenizer.pad_id) == ~stream.mask).all()
        assert stream.input_ids[stream.mask].max() < tokenizer.vocab_size
    with pytest.raises(PonderTTTError, match="the pad id must be at least the number of tokens"):
        build_chunks(shards, replace(tokenizer, pad_id=0), 64, tmp_path / "bad")


def test_a_corpus_without_a_long_enough_stream_is_an_error(
    tmp_path: Path, shards: Path, tokenizer: Any
) -> None:
    with pytest.raises(PonderTTTError, match="corpus mine: none of its 3 streams has 2 chunks"):
        build_chunks(shards, tokenizer, 100_000, tmp_path / "chunks")
    assert not (tmp_path / "chunks").exists()
    facts = build_chunks(shards, tokenizer, 100_000, tmp_path / "chunks", min_chunks_per_stream=1)
    assert facts["streams"] == {"big": 1, "single": 1, "tiny": 1}


def test_a_corrupt_file_of_chunks_is_an_error_that_names_it(
    tmp_path: Path, shards: Path, tokenizer: Any
) -> None:
    facts = build_chunks(shards, tokenizer, 64, tmp_path)
    path = tmp_path / CHUNKS_FILE
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CorruptFileError, match=f"{CHUNKS_FILE}: its sha256 differs.*Rebuild it: {REBUILD}"):
        read_chunks(tmp_path, REBUILD)
    path.write_bytes(b"PAR1 but no more")
    write_manifest(tmp_path, "chunks", {CHUNKS_FILE: 1}, facts)
    with pytest.raises(CorruptFileError, match=f"{CHUNKS_FILE}: not readable as Parquet"):
        read_chunks(tmp_path, REBUILD)
    with pytest.raises(CorruptFileError, match="holds shards, expected chunks"):
        read_chunks(shards, REBUILD)
