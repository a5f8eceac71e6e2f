"""What one job leaves for another: selected files, spread over buckets by the stable hash of their repository.

Whatever part of a dataset a file was in, its repository has one bucket, so that a repository is read, deduplicated and
split as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.corpus.hub.database import database
from ponderttt.corpus.hub.selection import stable_hash

#: Rows of a bucket that are in memory before they are written; with contents, bytes.
ROWS, BYTES = 4_096, 8 << 20
#: Rows of a bucket that are in memory once it is sorted, and row groups with contents.
BATCH, GROUPS = 128, 4


def bucket_of(repository: str, buckets: int) -> int:
    """The bucket of a repository: a slice of the range of its hash."""
    return min(int(stable_hash(repository) * buckets), buckets - 1)


def bucket_file(bucket: int) -> str:
    """Its name in the folder of a part."""
    return f"bucket-{bucket:05d}.parquet"


def candidate_schema() -> Any:
    """Of a bucket."""
    import pyarrow as pa

    integers = ("length_bytes", "stars", "forks", "changed")
    kinds = dict.fromkeys(integers, pa.int64()) | {
        "detected_licenses": pa.list_(pa.string()),
        "is_vendor": pa.bool_(),
        "is_generated": pa.bool_(),
    }
    columns = [
        pa.field(f.name, kinds.get(f.name, pa.string()), nullable=f.name == "content")
        for f in fields(Candidate)
    ]
    return pa.schema([pa.field("hash", pa.float64(), nullable=False), *columns])


class BucketWriter:
    """Writes files to their buckets, in the order in which they come; every bucket has a file, maybe an empty one."""

    def __init__(self, folder: Path, buckets: int) -> None:
        import pyarrow.parquet as pq

        schema = candidate_schema()
        self._schema = schema
        self._waiting: list[list[Candidate]] = [[] for _ in range(buckets)]
        self._sizes = [0] * buckets
        self.rows = [0] * buckets
        self._writers = [
            pq.ParquetWriter(folder / bucket_file(bucket), schema, compression="zstd")
            for bucket in range(buckets)
        ]

    def add(self, file: Candidate) -> None:
        """Write a file, sooner or later."""
        bucket = bucket_of(file.repo_name, len(self._waiting))
        self._waiting[bucket].append(file)
        self._sizes[bucket] += len(file.content or "")
        if len(self._waiting[bucket]) >= ROWS or self._sizes[bucket] >= BYTES:
            self._flush(bucket)

    def _flush(self, bucket: int) -> None:
        import pyarrow as pa

        rows = self._waiting[bucket]
        if rows:
            values = [{"hash": stable_hash(file.repo_name), **asdict(file)} for file in rows]
            table = pa.Table.from_pylist(values, schema=self._schema)
            self._writers[bucket].write_table(table)
        self.rows[bucket] += len(rows)
        self._waiting[bucket], self._sizes[bucket] = [], 0

    def __enter__(self) -> BucketWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bucket, writer in enumerate(self._writers):
            if kind is None:
                self._flush(bucket)
            writer.close()


def read_bucket(parts: Sequence[Path], bucket: int, scratch: Path, *, inline: bool) -> Iterator[Candidate]:
    """The files of a bucket, repositories in the order of their hash and files by path.

    Args:
        parts: folders that :class:`BucketWriter` filled.
        bucket: its number.
        scratch: folder for what does not fit into memory.
        inline: whether the dataset brought contents along; then only names are sorted, and contents read when it is their
            turn.
    """
    files = [str(part / bucket_file(bucket)) for part in parts]
    rows = _read_in_order(files, scratch) if inline else _read_sorted(files, scratch)
    for row in rows:
        yield Candidate(**{**row, "detected_licenses": tuple(row["detected_licenses"])})


_ORDER = "ORDER BY hash, repo_name, path, blob_id"


def _read_sorted(files: list[str], scratch: Path) -> Iterator[dict[str, Any]]:
    names = [field.name for field in fields(Candidate)]
    query = f"SELECT {', '.join(names)} FROM read_parquet($files) {_ORDER}"
    with database(scratch) as connection:
        for batch in connection.sql(query, params={"files": files}).to_arrow_reader(BATCH):
            yield from batch.to_pylist()


def _read_in_order(files: list[str], scratch: Path) -> Iterator[dict[str, Any]]:
    """A repository's rows lie together, so that a row group is read for all of them."""
    import pyarrow.parquet as pq

    readers = {file: pq.ParquetFile(file) for file in files}
    sizes = {
        file: [reader.metadata.row_group(group).num_rows for group in range(reader.num_row_groups)]
        for file, reader in readers.items()
    }
    starts = {file: np.cumsum([0, *rows]) for file, rows in sizes.items()}
    names = [field.name for field in fields(Candidate)]

    @lru_cache(maxsize=GROUPS)
    def group_of(file: str, group: int) -> Any:
        return readers[file].read_row_group(group, columns=names)

    query = f"SELECT filename, file_row_number FROM read_parquet($files, filename = true, file_row_number = true) {_ORDER}"
    with database(scratch) as connection:
        found = connection.execute(query, {"files": files})
        while rows := found.fetchmany(BATCH):
            for file, number in rows:
                group = int(np.searchsorted(starts[file], number, "right")) - 1
                yield group_of(file, group).slice(number - int(starts[file][group]), 1).to_pylist()[0]
