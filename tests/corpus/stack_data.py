"""Write snapshots in the layout of The Stack v2 and v3 from real code of the standard library.

Columns and types are those of the published datasets. Repositories are invented, files are real.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

T = TypeVar("T")

_STRING, _STRINGS, _BOOL = pa.string(), pa.list_(pa.string()), pa.bool_()
_INT, _INT32, _FLOAT32, _TIME = pa.int64(), pa.int32(), pa.float32(), pa.timestamp("ns")


def _of(type_: pa.DataType, names: str) -> list[pa.Field]:
    return [pa.field(name, type_) for name in names.split()]


V2_SCHEMA = pa.schema(
    [
        *_of(_STRING, "blob_id directory_id path content_id"),
        *_of(_STRINGS, "detected_licenses"),
        *_of(_STRING, "license_type repo_name snapshot_id revision_id branch_name"),
        *_of(_TIME, "visit_date revision_date committer_date"),
        *_of(_INT, "github_id star_events_count fork_events_count"),
        *_of(_STRING, "gha_license_id"),
        *_of(_TIME, "gha_event_created_at gha_created_at"),
        *_of(_STRING, "gha_language src_encoding language"),
        *_of(_BOOL, "is_vendor is_generated"),
        *_of(_INT, "length_bytes"),
        *_of(_STRING, "extension"),
    ]
)

_V2_LISTED = [
    *_of(_STRING, "blob_id path content_id language"),
    *_of(_INT, "length_bytes"),
    *_of(_STRINGS, "detected_licenses"),
    *_of(_STRING, "license_type src_encoding"),
    *_of(_BOOL, "is_vendor is_generated"),
    *_of(_FLOAT32, "alphanum_fraction alpha_fraction"),
    *_of(_INT32, "num_lines"),
    *_of(_FLOAT32, "avg_line_length"),
    *_of(_INT32, "max_line_length"),
]
V2_IDS_SCHEMA = pa.schema(
    [
        *_of(_STRING, "repo_name repo_url snapshot_id revision_id directory_id branch_name"),
        *_of(_TIME, "visit_date revision_date committer_date"),
        *_of(_INT, "github_id star_events_count fork_events_count"),
        *_of(_STRING, "gha_license_id"),
        *_of(_TIME, "gha_created_at gha_updated_at gha_pushed_at"),
        *_of(_STRING, "gha_language"),
        *_of(pa.list_(pa.struct(_V2_LISTED)), "files"),
        *_of(_INT, "num_files"),
    ]
)

_V3_LISTED = [
    *_of(_STRING, "file_path content content_id language license_type"),
    *_of(_STRINGS, "detected_licenses"),
    *_of(_BOOL, "is_vendor"),
    *_of(_INT, "size_bytes file_timestamp"),
]
V3_SCHEMA = pa.schema([*_of(_STRING, "repo_name"), *_of(pa.list_(pa.struct(_V3_LISTED)), "files")])


@dataclass(frozen=True)
class StackFile:
    """One file of a repository, as the datasets describe it."""

    repo_name: str
    path: str
    content: bytes = field(repr=False)
    license_type: str = "permissive"
    detected_licenses: tuple[str, ...] = ("MIT",)
    language: str = "Python"
    stars: int = 0
    forks: int = 0
    src_encoding: str = "UTF-8"
    is_vendor: bool = False
    is_generated: bool = False

    @property
    def blob_id(self) -> str:
        return hashlib.sha1(self.content).hexdigest()

    @property
    def content_id(self) -> str:
        """Git's id of the same bytes."""
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def text(self) -> str:
        return self.content.decode(self.src_encoding)

    def columns(self) -> dict[str, Any]:
        """Return the columns of a file in both editions of v2."""
        name = PurePosixPath(self.path)
        told = "blob_id content_id license_type src_encoding language is_vendor is_generated"
        return {column: getattr(self, column) for column in told.split()} | {
            "directory_id": _id("directory", self.repo_name, name.parent),
            "path": f"/{self.path}",
            "detected_licenses": list(self.detected_licenses),
            "length_bytes": len(self.content),
            "extension": name.suffix.lstrip("."),
            "filename": name.name,
        }


def _id(*parts: object) -> str:
    return hashlib.sha1("\0".join(map(str, parts)).encode()).hexdigest()


def _number(bound: int, *parts: object) -> int:
    return int(_id(*parts), 16) % bound


def _repository(file: StackFile) -> dict[str, Any]:
    """Return the columns of a file's repository in v2. One in four is unknown to GitHub's archive: null, not zero."""
    repo = file.repo_name
    visited = datetime(2023, 9, 1) + timedelta(seconds=_number(86_400 * 30, "visit", repo))
    committed = visited - timedelta(seconds=_number(86_400 * 2_000, "commit", repo))
    on_github = {
        "github_id": _number(10**9, "github", repo),
        "gha_license_id": next(iter(file.detected_licenses), None),
        "gha_created_at": committed - timedelta(days=400),
        "gha_language": file.language,
        **dict.fromkeys(("gha_event_created_at", "gha_updated_at", "gha_pushed_at"), committed),
    }
    return {
        **(on_github if _number(4, "known", repo) else dict.fromkeys(on_github)),
        **{"repo_name": repo, "repo_url": f"https://github.com/{repo}"},
        **{f"{kind}_id": _id(kind, repo, ".") for kind in ("snapshot", "revision", "directory")},
        "branch_name": "refs/heads/main" if _number(2, "branch", repo) else "refs/heads/master",
        **{"visit_date": visited, "revision_date": committed, "committer_date": committed},
        **{"star_events_count": file.stars, "fork_events_count": file.forks},
    }


def _write_parts(folder: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema, parts: int) -> None:
    """Write rows in order over some parts, each with two row groups, since published parts have several.

    No part may be empty, since `datasets` cannot stream a file without row groups.
    """
    if len(rows) < parts:
        raise ValueError(f"{len(rows)} rows do not fill {parts} parts of {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    cuts = [len(rows) * part // parts for part in range(parts + 1)]
    for part, (start, end) in enumerate(pairwise(cuts)):
        table = pa.Table.from_pylist(rows[start:end], schema=schema)
        pq.write_table(
            table, folder / f"train-{part:05d}-of-{parts:05d}.parquet", row_group_size=(end - start + 1) // 2
        )


def _write_card(folder: Path, configs: dict[str, str], title: str) -> None:
    """Write a card that declares the files of each configuration; the first configuration is the default."""
    lines = ["---", "license: other", "configs:"]
    for number, (name, pattern) in enumerate(configs.items()):
        lines += [f'- config_name: "{name}"', *(["  default: true"] if number == 0 else [])]
        lines += ["  data_files:", "  - split: train", f'    path: "{pattern}"']
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("\n".join([*lines, "---", "", f"# {title}", ""]), encoding="utf-8")


def write_stack_v2(
    folder: Path,
    files: Iterable[StackFile],
    languages: Sequence[str],
    *,
    parts: int = 2,
    filename: bool = False,
) -> Path:
    """Write rows like `the-stack-v2-dedup`: one per file without content, one configuration per language.

    Each language needs at least as many files as there are parts.
    """
    schema = V2_SCHEMA.append(pa.field("filename", pa.string())) if filename else V2_SCHEMA
    rows = [_repository(file) | file.columns() for file in files]
    for language in languages:
        held = [row for row in rows if row["language"] == language]
        _write_parts(folder / "data" / language, held, schema, parts)
    patterns = {language: f"data/{language}/train-*" for language in languages}
    _write_card(folder, {"default": "data/*/train-*"} | patterns, "The Stack v2, deduplicated")
    return folder


def _by_repository(files: Iterable[StackFile]) -> dict[str, list[StackFile]]:
    found: dict[str, list[StackFile]] = {}
    for file in files:
        found.setdefault(file.repo_name, []).append(file)
    return found


def _statistics(text: str) -> dict[str, float]:
    lengths = [len(line) for line in text.splitlines()] or [0]
    return {
        "alphanum_fraction": sum(map(str.isalnum, text)) / max(len(text), 1),
        "alpha_fraction": sum(map(str.isalpha, text)) / max(len(text), 1),
        "num_lines": len(lengths),
        "avg_line_length": sum(lengths) / len(lengths),
        "max_line_length": max(lengths),
    }


def write_stack_v2_ids(folder: Path, files: Iterable[StackFile], *, parts: int = 2) -> Path:
    """Write rows like `the-stack-v2-train-smol-ids`: one per repository with its files, without content."""
    rows = []
    for held in _by_repository(files).values():
        listed = [file.columns() | _statistics(file.text) for file in held]
        rows.append(_repository(held[0]) | {"files": listed, "num_files": len(listed)})
    _write_parts(folder / "data", rows, V2_IDS_SCHEMA, parts)
    _write_card(folder, {"default": "data/train-*"}, "The Stack v2, identifiers of a training set")
    return folder


def write_stack_v3(
    folder: Path, files: Iterable[StackFile], *, parts: int = 2, without_content: Collection[str] = ()
) -> Path:
    """Write rows like `stack-v3-train`: one per repository with its files' text, sorted by repository over parts.

    Files whose content id is in `without_content` have null as text.
    """
    rows = []
    for repo, held in sorted(_by_repository(files).items()):
        listed = [
            file.columns()
            | {
                "file_path": file.path,
                "content": None if file.content_id in without_content else file.text,
                "size_bytes": len(file.content),
                "file_timestamp": 1_600_000_000 + _number(10**8, "time", repo, file.path),
            }
            for file in held
        ]
        rows.append({"repo_name": repo, "files": listed})
    _write_parts(folder / "data", rows, V3_SCHEMA, parts)
    _write_card(folder, {"default": "data/train-*"}, "The Stack v3, training set")
    return folder


@dataclass(frozen=True)
class Planted:
    """Files of invented repositories, and the pairs of original and copy among them."""

    files: list[StackFile]
    exact: list[tuple[StackFile, StackFile]]
    near: list[tuple[StackFile, StackFile]]
    latin1: list[StackFile]

    @property
    def contents(self) -> dict[str, bytes]:
        """Every distinct content by blob id."""
        return {file.blob_id: file.content for file in self.files}


_REPOSITORIES = [  # name, license type, licenses, stars
    ("acorn/collections", "permissive", ("MIT",), 8_412),
    ("birch/net-tools", "permissive", ("Apache-2.0",), 1_203),
    ("cedar/parsers", "no_license", (), 0),
    ("dogwood/async-kit", "permissive", ("BSD-3-Clause",), 311),
    ("elm/formats", "non_permissive", ("GPL-3.0-only",), 5_020),
    ("fir/terminal", "permissive", ("MIT", "PSF-2.0"), 47),
    ("ginkgo/testing", "no_license", (), 12),
    ("hazel/packaging", "permissive", ("ISC",), 3),
    ("ironwood/numbers", "non_permissive", ("AGPL-3.0-or-later",), 96),
    ("juniper/system", "permissive", ("Apache-2.0", "MIT"), 0),
]


def _standard_library(count: int) -> list[tuple[str, bytes]]:
    """Return modules spread evenly over the standard library by name: the same on every run of one Python."""
    library = Path(os.__file__).parent
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings"}
    found: dict[bytes, str] = {}
    for path in sorted(path.relative_to(library) for path in library.rglob("*.py")):
        if not left_out & set(path.parts) and 1_000 <= (library / path).stat().st_size < 60_000:
            content = (library / path).read_bytes()
            with suppress(UnicodeDecodeError):
                content.decode("utf-8")
                found.setdefault(content, path.as_posix())
    return _spread([(path, content) for content, path in found.items()], count)


def _edited(content: bytes) -> bytes:
    """Return the program with a comment after one line in thirty and another author at the top."""
    lines = content.decode("utf-8").split("\n")
    for number in range(7, len(lines), 30):
        if lines[number] and not lines[number].endswith("\\"):
            lines[number] += "  # revised"
    return "\n".join(["# Maintained by another hand.", *lines]).encode()


def _spread(values: Sequence[T], count: int) -> list[T]:
    return [values[len(values) * number // count] for number in range(count)]


def _as_latin1(file: StackFile) -> StackFile | None:
    """Return the file in Latin-1 with a comment beyond ASCII; None if Latin-1 lacks a character."""
    try:
        content = f"# Écrit par François Müller, à relire.\n{file.text}".encode("latin-1")
    except UnicodeEncodeError:
        return None
    return replace(file, content=content, src_encoding="ISO-8859-1")


def _is_plain(file: StackFile) -> bool:
    """Return whether only the filter of copies may drop the file."""
    odd = file.is_vendor or file.is_generated or file.src_encoding != "UTF-8"
    return not odd and len(file.content) > 4_000


def _copy(original: StackFile, files: list[StackFile], *, edit: bool) -> StackFile:
    """Return the file as a copy in another repository: with another path, license and stars."""
    names = [name for name, *_ in _REPOSITORIES]
    target = names[(names.index(original.repo_name) + len(names) // 2) % len(names)]
    neighbour = next(file for file in files if file.repo_name == target and file.src_encoding == "UTF-8")
    path = f"lib/copied/{original.path.replace('/', '_')}"
    content = _edited(original.content) if edit else original.content
    return replace(neighbour, path=path, content=content, is_vendor=False, is_generated=False)


def planted_files(count: int = 120, copies: int = 6) -> Planted:
    """Return about ``count`` real files in ten repositories, with copies across them, edited copies and Latin-1 files.

    A fifth of the files are vendored or generated. Neighbours in the library share a repository.
    """
    modules = _standard_library(count)
    files: list[StackFile] = []
    for number, (path, content) in enumerate(modules):
        name, license_type, licenses, stars = _REPOSITORIES[number * len(_REPOSITORIES) // len(modules)]
        file = StackFile(name, f"src/{path}", content, license_type, licenses, stars=stars, forks=stars // 7)
        if number % 8 == 3:
            file = replace(file, path=f"vendor/{path}", is_vendor=True)
        files.append(replace(file, is_generated=number % 13 == 5))
    latin1 = _spread([latin for file in files if (latin := _as_latin1(file)) is not None], 3)
    by_place = {(file.repo_name, file.path): file for file in latin1}
    files = [by_place.get((file.repo_name, file.path), file) for file in files]
    originals = _spread([file for file in files if _is_plain(file)], 2 * copies)
    pairs = [(file, _copy(file, files, edit=number % 2 == 1)) for number, file in enumerate(originals)]
    files.extend(copy for _, copy in pairs)
    return Planted(files, exact=pairs[0::2], near=pairs[1::2], latin1=latin1)
