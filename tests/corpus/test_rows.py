"""All rows of a file are checked, and no file is in memory as a whole."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ponderttt.corpus.hub import tables
from ponderttt.corpus.hub.rows import open_rows
from ponderttt.errors import PonderTTTError
from ponderttt.settings.experiment import CorpusConfig
from ponderttt.settings.hub import HubConfig
from ponderttt.workflow.stages.select import select
from stack_builds import quiet


def corpus_of(path: Path, kind: Any = "text", **hub: Any) -> CorpusConfig:
    return CorpusConfig(kind, "Python", "train", hub=HubConfig(path=str(path), **hub))


def rows_of(corpus: CorpusConfig) -> list[dict[str, Any]]:
    return [row for table in open_rows(corpus, 0) for row in table.to_pylist()]


def write_lines(file: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def refusal(corpus: CorpusConfig, folder: Path) -> str:
    """Return the error of a job that cannot read its part and leaves no output."""
    with pytest.raises(PonderTTTError) as error:
        select(corpus, "stack", 0, folder / "part-0", quiet(folder))
    assert not (folder / "part-0").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


FILE: dict[str, object] = {
    **{"file_path": "a.py", "content": "a = 1\n", "content_id": "1", "language": "Python"},
    **{"license_type": "permissive", "detected_licenses": ["MIT"], "is_vendor": False},
    **{"size_bytes": 6, "file_timestamp": 1},
}
REPOSITORY: dict[str, object] = {"repo_name": "o/n", "files": [FILE]}


LATER: list[tuple[str, dict[str, object], dict[str, object], str]] = [
    ("text", {"text": "a" * 90}, {"text": 5}, "rows.jsonl, row 21: text is number, not string"),
    ("text", {"text": "a" * 90}, {"text": {"a": 1}}, "rows.jsonl, row 21: text is object, not string"),
    ("text", {"text": "a" * 90}, {"other": "a"}, "rows.jsonl, after row 20: its columns differ"),
    ("text", {"text": "a" * 90}, {"other": "a"}, "text is missing"),
    (
        "stack_v3",
        REPOSITORY,
        {**REPOSITORY, "files": [{**FILE, "content": 7}]},
        "row 21: files.content is number, not string",
    ),
    ("stack_v3", REPOSITORY, {"repo_name": "o/n"}, "after row 20"),
    ("stack_v3", REPOSITORY, {"repo_name": "o/n"}, "files is missing"),
    ("stack_v3", REPOSITORY, {**REPOSITORY, "files": [{"content": "a"}]}, "files.file_path is missing"),
]


@pytest.mark.parametrize(("kind", "row", "other", "says"), LATER)
def test_a_later_row_of_json_without_a_column_or_of_another_type_is_named(
    kind: str,
    row: dict[str, object],
    other: dict[str, object],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "BLOCK", 20 * len(json.dumps(row) + "\n") - 1)
    file = write_lines(tmp_path / "rows.jsonl", [row] * 20 + [other] * 3)
    assert says in refusal(corpus_of(file, kind), tmp_path)


def test_what_else_a_row_of_json_has_and_what_a_text_looks_like_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BLOCK", 64)
    rows: list[dict[str, object]] = [
        {"text": "2024-05-01", "repo": "o/n", "more": 1},
        {"text": "2024-05-02", "repo": "o/n", "more": "1"},
        {"text": "7", "repo": "o/n", "more": {"text": [1, "a"]}},
        {"text": None, "repo": "o/n"},
        {"repo": "o/n", "said": 'not a key: "text": 1', "text": '"text": "é\u2028"'},
        {"text": "x" * 200, "repo": None},
    ]
    corpus = corpus_of(write_lines(tmp_path / "rows.jsonl", rows), repository_column="repo")
    assert rows_of(corpus) == [{"text": row["text"], "repo": row["repo"]} for row in rows]


def test_a_row_without_a_key_that_its_neighbours_have_has_a_null(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "rows.jsonl", [{"text": "a", "license": "mit"}, {"text": "b"}])
    assert [row["license"] for row in rows_of(corpus_of(file, license_column="license"))] == ["mit", None]


def test_json_is_lines_or_an_array_packed_or_not(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}"} for n in range(50)]
    lines = "\n\n".join(map(json.dumps, rows)).encode()
    (tmp_path / "lines.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "array.json").write_text(json.dumps(rows, indent=1))
    for name in ("lines.jsonl", "packed.json.gz", "array.json"):
        assert rows_of(corpus_of(tmp_path / name)) == rows


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.jsonl", b'{"text": "a"}\n{"text": "b"\n', "rows.jsonl, row 2: not readable as rows of JSON"),
        ("rows.json", b"[1, 2]", "an array with values other than objects"),
        ("rows.json", b'[{"text": "a"', "rows.json, after row 0: cannot be read (JSONDecodeError"),
        (
            "rows.jsonl.gz",
            gzip.compress(b'{"text": "a"}\n' * 99)[:-20],
            "rows.jsonl.gz, after row 0: cannot",
        ),
        ("rows.txt", b"a line\n\xff\n", "rows.txt, after row 0: cannot be read (UnicodeDecodeError"),
        ("rows.parquet", b"PAR1 and no more", "rows.parquet, after row 0: cannot be read (ArrowInvalid"),
    ],
    ids=["an object cut", "numbers", "an array cut", "gzip cut", "latin-1", "no Parquet"],
)
def test_a_damaged_file_is_one_line_that_names_it(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert says in refusal(corpus_of(tmp_path / name), tmp_path)


def test_a_folder_that_cannot_be_read_is_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the error is simulated."""
    (tmp_path / "rows" / "closed").mkdir(parents=True)
    (tmp_path / "rows" / "a.txt").write_text("one\n")
    scan = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "closed: cannot be read (Permission denied)" in refusal(corpus_of(tmp_path / "rows"), tmp_path)


def test_lines_of_a_text_keep_their_ends_wherever_a_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BLOCK", 7)
    lines = ["one\n", "\n", " two\u2028and \x0b half\n", "three\n", "four"]
    (tmp_path / "rows.txt").write_text("".join(lines).replace("three\n", "three\r\n"), newline="")
    assert [row["text"] for row in rows_of(corpus_of(tmp_path / "rows.txt"))] == lines


def write_groups(file: Path, rows: int, size: int, more: Mapping[str, pa.Array] | None = None) -> Path:
    """Write row groups of texts of that length that do not compress well."""
    noise, draw = random.Random(0).randbytes(size).hex(), random.Random(1)
    texts = [noise[(start := draw.randrange(size)) : start + size] for _ in range(rows)]
    table = pa.table({"text": pa.array(texts), **(more or {})})
    pq.write_table(table, file, compression="none", use_dictionary=False, write_batch_size=8)
    assert pq.ParquetFile(file).num_row_groups == 1
    return file


def test_a_row_group_of_large_rows_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    rows, size = 800, 64 << 10
    file = write_groups(tmp_path / "rows.parquet", rows, size)
    assert file.stat().st_size > 50e6
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        found = sum(len(table) for table in open_rows(corpus_of(file), 0))
    finally:
        pa.set_memory_pool(before)
    assert found == rows
    # A few tables of 2 MB, and the bytes fetched together.
    assert 0 < pool.max_memory() < 20e6


def overwritten(file: Path, column: str) -> None:
    """Damage the values of a column."""
    group = pq.ParquetFile(file).metadata.row_group(0)
    place = next(
        group.column(n) for n in range(group.num_columns) if group.column(n).path_in_schema == column
    )
    raw = bytearray(file.read_bytes())
    start = place.data_page_offset
    raw[start : start + place.total_compressed_size] = b"\xff" * place.total_compressed_size
    file.write_bytes(raw)


def test_columns_that_are_not_read_are_not_decoded(tmp_path: Path) -> None:
    more = {"other": pa.array([f"other {n}" for n in range(100)])}
    file = write_groups(tmp_path / "rows.parquet", 100, 50, more)
    whole = rows_of(corpus_of(file))
    overwritten(file, "other")
    with pytest.raises(OSError):
        pq.read_table(file)
    assert rows_of(corpus_of(file)) == whole
    overwritten(file, "text")
    assert "rows.parquet, after row 0: cannot be read (OSError" in refusal(corpus_of(file), tmp_path)


@pytest.mark.parametrize("kind", ["text", "stack_v2", "stack_v3"])
def test_a_file_of_parquet_that_lacks_a_column_is_refused_by_its_schema(kind: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"other": ["a"], "repo_name": ["o/n"]}), tmp_path / "rows.parquet")
    corpus = corpus_of(tmp_path / "rows.parquet", kind, accept_terms=True)
    wanted = {"text": "text is missing", "stack_v2": "blob_id is missing", "stack_v3": "files is missing"}
    said = refusal(corpus, tmp_path)
    assert "rows.parquet: its columns differ from the expected ones" in said and wanted[kind] in said


def text_of(*raw: bytes) -> pa.Array:
    """Return a column of text with these bytes, valid or not."""
    offsets = [0]
    for value in raw:
        offsets.append(offsets[-1] + len(value))
    places = pa.array(offsets, pa.int32()).buffers()[1]
    return pa.StringArray.from_buffers(len(raw), places, pa.py_buffer(b"".join(raw)))


@pytest.mark.parametrize("column", ["text", "repo"])
def test_a_value_that_is_no_text_is_named_by_its_row(column: str, tmp_path: Path) -> None:
    values = {"text": [b"a text"] * 50, "repo": [b"o/n"] * 50}
    values[column][40] = b"caf\xe9"
    pq.write_table(pa.table({name: text_of(*raw) for name, raw in values.items()}), tmp_path / "rows.parquet")
    corpus = corpus_of(tmp_path / "rows.parquet", repository_column="repo")
    assert "rows.parquet, row 41: a value that cannot be read (UnicodeDecodeError" in refusal(
        corpus, tmp_path
    )


def test_rows_know_their_file_and_their_number_in_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_lines(tmp_path / f"{name}.jsonl", [{"text": f"{name} {n}"} for n in range(70)])
    corpus = corpus_of(tmp_path)
    placed = [table.schema.metadata for table in open_rows(corpus, 0)]
    assert [int(place[b"row"]) for place in placed] == [0, 32, 64] * 2
    assert [place[b"file"][-7:] for place in placed] == [b"a.jsonl"] * 3 + [b"b.jsonl"] * 3


def test_a_file_of_no_rows_has_none(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "b.parquet")
    assert rows_of(corpus_of(tmp_path)) == [{"text": "a"}]
