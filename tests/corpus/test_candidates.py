"""Every row of a dataset is a file, a counted drop, or an error of one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ponderttt.corpus.hub.buckets import BucketWriter, read_bucket
from ponderttt.corpus.hub.candidates import Candidate, candidates_of, joined_documents
from ponderttt.corpus.hub.selection import Selection
from ponderttt.settings.experiment import CorpusConfig
from ponderttt.settings.hub import HubConfig
from stack_builds import build, facts_of, files_of
from stack_data import V2_IDS_SCHEMA, V2_SCHEMA, V3_SCHEMA

FILE = {
    "repo_name": "owner/name",
    "path": "/src/a.py",
    "blob_id": "b" * 40,
    "content_id": "c" * 40,
    "language": "Python",
    "license_type": "permissive",
    "detected_licenses": ["MIT"],
    "src_encoding": "UTF-8",
    "is_vendor": False,
    "is_generated": False,
    "length_bytes": 1_000,
    "star_events_count": 3,
    "fork_events_count": 2,
    "revision_date": datetime(2023, 9, 1),
}
V2 = CorpusConfig("stack_v2", "Python", "train", hub=HubConfig(path="x", accept_terms=True))
V3 = CorpusConfig("stack_v3", "Python", "train", hub=HubConfig(path="x"))


def found_in(table: pa.Table, corpus: CorpusConfig = V2) -> list[Candidate | None]:
    return list(candidates_of(corpus, table, 0, 0))


def candidate(**changes: object) -> Candidate | None:
    """Return the candidate of a v2 row with some changes."""
    (found,) = found_in(pa.Table.from_pylist([{**FILE, **changes}], schema=V2_SCHEMA))
    return found


def wanted(file: Candidate | None, corpus: CorpusConfig = V2) -> str | None:
    assert file is not None
    return Selection.of(corpus).reason(file)


def test_a_good_row_is_wanted() -> None:
    good = candidate()
    assert wanted(good) is None
    assert good is not None and (good.path, good.changed) == ("src/a.py", 1_693_526_400)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((name, value) for name in ("repo_name", "path", "blob_id", "content_id") for value in (None, "")),
        ("path", "/"),
        ("path", "//"),
        ("length_bytes", None),
        ("length_bytes", -1),
    ],
)
def test_a_row_without_what_names_its_content_or_its_size_is_incomplete(column: str, value: object) -> None:
    assert candidate(**{column: value}) is None


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("language", None, "other_language"),
        ("language", "", "other_language"),
        ("license_type", None, "license"),
        ("license_type", "", "license"),
        ("license_type", "unheard_of", "license"),
        ("detected_licenses", None, None),
        ("detected_licenses", [], None),
        ("detected_licenses", [None], "license"),
        ("detected_licenses", ["MIT", None], "license"),
        ("detected_licenses", ["MIT", ""], "license"),
        ("detected_licenses", ["MIT", " "], "license"),
        ("detected_licenses", ["MIT", "MIT"], None),
        ("src_encoding", None, None),
        ("is_vendor", None, None),
        ("is_generated", None, None),
        ("length_bytes", 0, "empty"),
        ("length_bytes", 2**62, "too_large"),
        ("star_events_count", None, None),
        ("fork_events_count", -5, None),
        ("revision_date", None, None),
    ],
)
def test_a_value_that_is_missing_or_odd_never_lets_a_file_in_that_is_not_allowed(
    column: str, value: object, reason: str | None
) -> None:
    assert wanted(candidate(**{column: value})) == reason


def test_counts_that_are_missing_negative_or_without_a_sign_are_counts() -> None:
    columns = pa.Table.from_pylist([FILE] * 4, schema=V2_SCHEMA)
    place = columns.schema.get_field_index("star_events_count")
    stars = pa.array([None, 7, 2**64 - 1, 0], pa.uint64())
    found = found_in(columns.set_column(place, "star_events_count", stars))
    assert [file.stars for file in found if file] == [0, 7, 2**63 - 1, 0]
    negative, lacking = candidate(star_events_count=-1), candidate(fork_events_count=None)
    assert negative is not None and lacking is not None and (negative.stars, lacking.forks) == (0, 0)


@pytest.mark.parametrize(
    ("dates", "seconds"),
    [
        (pa.array([None], pa.timestamp("ns")), 0),
        (pa.array([None], pa.null()), 0),
        (pa.array([-86_400_000], pa.timestamp("ms")), -86_400),
        (pa.array([400_000_000_000], pa.timestamp("s")), 400_000_000_000),  # in the year 14645
        (pa.array([2**63 - 1], pa.timestamp("s")), 2**63 - 1),
        (
            pa.array(
                [datetime(2023, 9, 1, 2, tzinfo=timezone(timedelta(hours=2)))], pa.timestamp("us", "+02:00")
            ),
            int(datetime(2023, 9, 1, tzinfo=UTC).timestamp()),
        ),
    ],
    ids=["null", "all null", "before 1970", "no year of a calendar", "the last second", "zone"],
)
def test_dates_of_any_unit_zone_and_year_are_seconds(dates: pa.Array, seconds: int) -> None:
    table = pa.Table.from_pylist([FILE], schema=V2_SCHEMA)
    place = table.schema.get_field_index("revision_date")
    (file,) = found_in(table.set_column(place, "revision_date", dates))
    assert file is not None and file.changed == seconds


def test_a_repository_without_a_list_of_files_is_counted_and_one_with_an_empty_list_has_none() -> None:
    entry = {name: FILE[name] for name in FILE if name not in ("repo_name", "revision_date")}
    rows = [{**FILE, "files": files} for files in (None, [], [None, entry, {**entry, "path": None}])]
    found = found_in(pa.Table.from_pylist(rows, schema=V2_IDS_SCHEMA))
    assert [file and file.path for file in found] == [None, None, "src/a.py", None]


def test_rows_with_contents_count_what_they_lack() -> None:
    entry = {
        "file_path": "/a.py",
        "content": "a = 1\n" * 20,
        "language": "Python",
        "license_type": "permissive",
    }
    changes: list[Mapping[str, Any]] = [
        {},
        {"content": None},
        {"content": None, "size_bytes": -4},
        {"content": ""},
        {"file_path": "/"},
        {"file_timestamp": None, "is_vendor": None, "detected_licenses": [None]},
    ]
    row = {"repo_name": "o/n", "files": [{**entry, **change} for change in changes]}
    found = found_in(pa.Table.from_pylist([row], schema=V3_SCHEMA), V3)
    reasons = [wanted(file, V3) if file else "incomplete" for file in found]
    assert reasons == [None, "no_content", "no_content", "empty", "incomplete", "license"]
    assert [file.length_bytes for file in found if file] == [120, 0, 0, 0, 120]


ODD = [
    "../../etc/passwd",
    "C:\\Windows\\a.py",
    "C:/a.py",
    "a\0b.py",
    "a/../../b.py",
    ".",
    "~/a.py",
    " ",
    "a\nb.py",
]


def test_a_path_is_a_name_and_nothing_is_ever_written_where_it_points(tmp_path: Path) -> None:
    """Contents are fetched by sha1, and paths are only a column of shards."""
    files = [candidate(path=path) for path in ODD]
    part = tmp_path / "part"
    part.mkdir()
    with BucketWriter(part, 1) as writer:
        for file in files:
            assert file is not None and wanted(file) is None
            writer.add(file)
    for inline in (True, False):
        found = list(read_bucket([part], 0, tmp_path / "scratch", inline=inline))
        assert [file.path for file in found] == sorted(ODD)


def texts(tmp_path: Path, values: Mapping[str, list[Any]], **hub: Any) -> CorpusConfig:
    columns = {name: pa.array(column, pa.string()) for name, column in values.items()}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    return CorpusConfig("text", "English", "test", hub=HubConfig(path=str(tmp_path / "rows.parquet"), **hub))


def test_rows_of_a_text_count_what_they_lack(tmp_path: Path) -> None:
    code = ["the first of all texts\n", None, "", "the next one\n", "and another\n", "of no license\n", "x\n"]
    names = ["o/a", "o/b", "o/c", None, "", "o/f", "o/g"]
    licenses = ["mit", "mit", "mit", "mit", "mit", None, ""]
    corpus = texts(
        tmp_path,
        {"text": code, "repo": names, "license": licenses},
        repository_column="repo",
        license_column="license",
    )
    shards = build(corpus, tmp_path)
    assert [file.content for file in files_of(shards)] == code[:1]
    drops = {reason: count["files"] for reason, count in facts_of(shards)["drops"].items()}
    assert drops == {"no_content": 1, "empty": 1, "incomplete": 2, "license": 2}


def test_a_line_that_is_null_is_no_empty_line_of_its_document(tmp_path: Path) -> None:
    corpus = texts(tmp_path, {"text": [" = A = ", "a", None, "", "b", None]}, document_start="^ = ")
    shards = build(corpus, tmp_path)
    assert [file.content for file in files_of(shards)] == [" = A = \na\n\nb\n"]
    assert facts_of(shards)["drops"]["no_content"]["files"] == 2


def test_documents_of_nothing_but_nulls_are_none() -> None:
    corpus = CorpusConfig("text", "English", "test", hub=HubConfig(path="x"))

    def lines() -> Iterator[Candidate]:
        for file in found_in(pa.table({"text": pa.array([None, None], pa.string())}), corpus):
            assert file is not None
            yield file

    assert [file.content for file in joined_documents(lines(), "^ = ")] == [None, None]
