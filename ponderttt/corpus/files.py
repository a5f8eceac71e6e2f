"""One source file of a corpus, and its columns in a shard."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from typing import Any

#: Columns of a shard, in order.
COLUMNS = (
    "blob_id",
    "content_id",
    "repo_name",
    "path",
    "language",
    "license_type",
    "detected_licenses",
    "src_encoding",
    "length_bytes",
    "content",
    "source",
    "split",
)


@dataclass(frozen=True)
class SourceFile:
    """A file that passed the filters; the names follow The Stack v2 (Lozhkov et al. 2024, arXiv:2402.19173)."""

    #: sha1 of the bytes.
    blob_id: str
    #: Git's name of the same bytes: the sha1 of a blob object.
    content_id: str
    repo_name: str
    path: str
    language: str
    #: ``permissive``, or another type that the configuration allows for a dataset.
    license_type: str
    #: SPDX names: the repository's license, then those that the file states.
    detected_licenses: tuple[str, ...]
    src_encoding: str
    length_bytes: int
    content: str
    #: Where the file comes from, for example ``wheel:click==8.1.7``.
    source: str
    split: str


assert tuple(field.name for field in fields(SourceFile)) == COLUMNS


def blob_id(content: bytes) -> str:
    """Return the sha1 of a file's bytes, as hex."""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def content_id(content: bytes) -> str:
    """Return git's object name of a file's bytes."""
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def shard_schema() -> Any:
    """Return the Arrow schema of a shard."""
    import pyarrow as pa

    kinds = {"detected_licenses": pa.list_(pa.string()), "length_bytes": pa.int64()}
    return pa.schema([pa.field(name, kinds.get(name, pa.string()), nullable=False) for name in COLUMNS])


def to_table(files: list[SourceFile]) -> Any:
    """Return an Arrow table with one row per file."""
    import pyarrow as pa

    return pa.Table.from_pylist([asdict(file) for file in files], schema=shard_schema())


def from_table(table: Any) -> list[SourceFile]:
    """Return the files of a table from :func:`to_table`."""
    return [
        SourceFile(**{**row, "detected_licenses": tuple(row["detected_licenses"])})
        for row in table.to_pylist()
    ]
