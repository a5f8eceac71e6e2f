"""A stream of limited length starts at a drawn file and reads on in path order, without a gap and without wrapping."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponderttt.corpus.chunks import build_chunks, chunk_facts, read_chunks
from ponderttt.corpus.shards import build_shards
from ponderttt.corpus.spans import drawn_file, tokenize_span
from ponderttt.corpus.streams import Document, tokenize_documents
from ponderttt.settings.corpus import CorpusConfig

REBUILD = "snakemake chunks"
SIZE = 32


def length_of(documents: list[Document], tokenizer: Any) -> int:
    return len(tokenize_documents(documents, tokenizer).ids)


texts = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(texts=texts, max_tokens=st.integers(1, 60), data=st.data())
def test_a_span_is_the_files_from_the_drawn_one_on_or_as_few_more_as_fill_it(
    texts: list[str], max_tokens: int, data: st.DataObject, tokenizer: Any
) -> None:
    documents = [Document(f"{i}.py", text) for i, text in enumerate(texts)]
    drawn = data.draw(st.integers(0, len(documents) - 1))
    span = tokenize_span(documents, tokenizer, max_tokens, drawn)
    first = int(span.document_paths[0].removesuffix(".py"))
    wanted = tokenize_documents(documents[first:], tokenizer, max_tokens)
    assert np.array_equal(span.ids, wanted.ids) and np.array_equal(span.n_bytes, wanted.n_bytes)
    assert span.document_paths == wanted.document_paths
    assert np.array_equal(span.document_starts, wanted.document_starts)
    if length_of(documents[drawn:], tokenizer) >= max_tokens:
        assert first == drawn
    else:
        # One file later would be too few; only the whole repository may be shorter.
        assert first == 0 or length_of(documents[first:], tokenizer) >= max_tokens
        assert first == drawn or length_of(documents[first + 1 :], tokenizer) < max_tokens


def test_files_outside_of_the_span_are_not_tokenised(tokenizer: Any) -> None:
    seen: list[str] = []

    class Watching:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def encode(self, text: str) -> list[int]:
            seen.append(text)
            return tokenizer.encode(text)

    documents = [Document(f"{i}.py", f"value_{i} = {i}\n" * 20) for i in range(10)]
    tokenize_span(documents, Watching(), 16, 4)
    assert seen == [documents[4].text]


def test_a_document_that_the_tokenizer_loses_bytes_of_fills_nothing(tokenizer: Any) -> None:
    lossy = Document("c.py", "stop = '<|endoftext|>'\n")
    documents = [Document("a.py", "a = 1\n"), Document("b.py", "b = 2\n"), lossy]
    span = tokenize_span(documents, tokenizer, 3, 2)
    assert span.document_paths == ("b.py",)
    assert not span.not_lossless, "the file after the last token does not count"
    whole = tokenize_span(documents, tokenizer, 1_000, 2)
    assert whole.document_paths == ("a.py", "b.py")
    assert list(whole.not_lossless) == ["c.py"]


def test_files_are_drawn_evenly_by_seed_and_name_and_the_same_everywhere() -> None:
    draws = Counter(drawn_file(0, f"package-{i}", 5) for i in range(5_000))
    # Five standard deviations of a binomial count with n = 5,000 and p = 1/5.
    assert all(abs(draws[file] - 1_000) < 5 * 28.3 for file in range(5))
    assert [drawn_file(seed, "requests", 1_000) for seed in (0, 1)] == [355, 508]
    assert drawn_file(0, "anything", 1) == 0


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, code_files: list[Path]) -> Path:
    """Shards of four repositories of five files."""
    top = tmp_path_factory.mktemp("spans")
    for number in range(4):
        folder = top / "src" / f"repository-{number}"
        folder.mkdir(parents=True)
        for path in code_files[5 * number : 5 * number + 5]:
            (folder / path.name).write_text(path.read_text())
    config = CorpusConfig(
        "files", "Python", "heldout", path=str(top / "src"), license="MIT", single_repository=False
    )
    build_shards(config, "mine", top, top / "shards")
    return top / "shards"


def build(shards: Path, tokenizer: Any, folder: Path, seed: int | None, limit: int | None = 3) -> Path:
    build_chunks(shards, tokenizer, SIZE, folder, limit, span_seed=seed)
    return folder


def test_the_manifest_says_where_streams_start_and_offsets_count_from_there(
    tmp_path: Path, shards: Path, tokenizer: Any, code_files: list[Path]
) -> None:
    folder = build(shards, tokenizer, tmp_path, 0)
    facts, streams = chunk_facts(folder, REBUILD), read_chunks(folder, REBUILD)
    text_of = {path.name: path.read_text() for path in code_files}
    assert facts["span_seed"] == 0
    assert facts["starts"] == {stream.stream_id: stream.document_paths[0] for stream in streams}
    for stream in streams:
        assert stream.n_chunks == 3 and stream.mask.all()
        assert stream.document_starts[0] == 0
        for start, path in zip(stream.document_starts, stream.document_paths, strict=True):
            read = stream.input_ids.reshape(-1)[start : start + 8].tolist()
            assert text_of[path].startswith(tokenizer.decode(read).split("<|endoftext|>")[0])
    first = {f"repository-{n}": code_files[5 * n].name for n in range(4)}
    assert facts["starts"] != first


def test_a_seed_gives_the_same_spans_another_one_other_spans_and_none_the_first_files(
    tmp_path: Path, shards: Path, tokenizer: Any, code_files: list[Path]
) -> None:
    starts = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1), ("first", None)):
        folder = build(shards, tokenizer, tmp_path / name, seed)
        starts[name] = chunk_facts(folder, REBUILD)["starts"]
    assert starts["a"] == starts["b"] != starts["c"]
    assert starts["first"] == {f"repository-{n}": code_files[5 * n].name for n in range(4)}


def test_a_stream_without_a_limit_is_the_whole_repository(
    tmp_path: Path, shards: Path, tokenizer: Any
) -> None:
    whole = read_chunks(build(shards, tokenizer, tmp_path / "a", 0, None), REBUILD)
    plain = read_chunks(build(shards, tokenizer, tmp_path / "b", None, None), REBUILD)
    for a, b in zip(whole, plain, strict=True):
        assert np.array_equal(a.input_ids, b.input_ids) and a.document_paths == b.document_paths
