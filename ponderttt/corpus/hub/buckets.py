"""Buckets: the selected files of a dataset, spread over Parquet files by the stable hash of their repository.

All files of a repository are in one bucket, whatever parts of the dataset they came from, so that it is read,
deduplicated and split as a whole.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.corpus.hub.database import database
from ponderttt.corpus.hub.selection import stable_hash

#: Bytes that may wait in memory for all buckets together, and about what a file takes besides its content.
PENDING, FILE = 128 << 20, 1_500
#: Most rows and bytes of content in a row group, which is decoded as a whole even for one file.
ROWS, BYTES = 4_096, 256 << 10
#: Bytes of a bucket to sort at once in memory.
SORTED = 64 << 20
#: Bytes of content to read together, rows to turn into objects together, and files to keep open meanwhile.
READ, BATCH, OPEN = 64 << 20, 128, 16
_ORDER = ("hash", "repo_name", "path", "blob_id")


def bucket_of(repository: str, buckets: int, hash_from: float = 0.0, hash_to: float = 1.0) -> int:
    """Return the bucket of a repository: an equal slice of the range of hashes, the nearest one for a hash outside."""
    share = (stable_hash(repository) - hash_from) / (hash_to - hash_from)
    return min(max(int(share * buckets), 0), buckets - 1)


def bucket_file(bucket: int) -> str:
    """Return the name of a bucket's file in the folder of a part."""
    return f"bucket-{bucket:05d}.parquet"


def candidate_schema() -> Any:
    """Return the Arrow schema of a bucket."""
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
    """Writes files to their buckets; every bucket gets a file, even an empty one.

    Neither memory nor open files grow with the number of buckets: when too much waits, the largest bucket is appended to
    a spool file, and only one file is open at a time.

    Args:
        folder: where to write one file per bucket.
        buckets: how many.
        hash_from: lowest hash of the repositories; buckets are equal slices of the range.
        hash_to: end of the range, excluded.
    """

    def __init__(self, folder: Path, buckets: int, hash_from: float = 0.0, hash_to: float = 1.0) -> None:
        self._folder = folder
        self._range = (hash_from, hash_to)
        self._spool = folder / "spool"
        self._spool.mkdir()
        self._schema = candidate_schema()
        self._waiting: list[list[Candidate]] = [[] for _ in range(buckets)]
        self._sizes = [0] * buckets
        self._total = 0
        self.rows = [0] * buckets

    def add(self, file: Candidate) -> None:
        """Write a file, now or later."""
        bucket = bucket_of(file.repo_name, len(self._waiting), *self._range)
        # Python stores a text with one rare character in up to four bytes per character.
        size = FILE + sys.getsizeof(file.content)
        self._waiting[bucket].append(file)
        self._sizes[bucket] += size
        self._total += size
        while self._total > PENDING:
            # The largest, the first among equals: the choice depends on the files alone.
            self._spill(self._sizes.index(max(self._sizes)))

    def _spill(self, bucket: int) -> None:
        """Append what waits for a bucket to its spool file, as one more Arrow stream."""
        import pyarrow as pa

        rows = self._waiting[bucket]
        self._waiting[bucket] = []
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with (
            self._spool_file(bucket).open("ab") as handle,
            pa.ipc.new_stream(handle, self._schema, options=options) as writer,
        ):
            for start in range(0, len(rows), BATCH):
                values = [
                    {"hash": stable_hash(row.repo_name), **asdict(row)} for row in rows[start : start + BATCH]
                ]
                writer.write_batch(pa.RecordBatch.from_pylist(values, schema=self._schema))
        self.rows[bucket] += len(rows)
        self._total -= self._sizes[bucket]
        self._sizes[bucket] = 0

    def _spool_file(self, bucket: int) -> Path:
        return self._spool / f"{bucket:05d}.arrows"

    def _finish(self, bucket: int) -> None:
        """Write the spooled files of a bucket in order, one portion at a time, in small row groups."""
        import pyarrow.parquet as pq

        # No reader uses statistics, and with many small groups they would take up much of the file.
        with pq.ParquetWriter(
            self._folder / bucket_file(bucket), self._schema, compression="zstd", write_statistics=False
        ) as writer:
            for table in _portions(self._spool_file(bucket)):
                ordered = table.sort_by([(name, "ascending") for name in _ORDER])
                for start, stop in _row_groups(ordered):
                    writer.write_table(ordered.slice(start, stop - start))
        self._spool_file(bucket).unlink(missing_ok=True)

    def __enter__(self) -> BucketWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            buckets = range(len(self._waiting))
            for bucket in buckets:
                if self._waiting[bucket]:
                    self._spill(bucket)
            for bucket in buckets:
                self._finish(bucket)
        shutil.rmtree(self._spool)


def _portions(spool: Path) -> Iterator[Any]:
    """Yield the streams of a spool file as tables of :data:`SORTED` bytes each."""
    import pyarrow as pa

    if not spool.exists():
        return
    batches, size = [], 0
    with spool.open("rb") as handle:
        end = spool.stat().st_size
        while handle.tell() < end:
            for batch in pa.ipc.open_stream(handle):
                batches.append(batch)
                size += batch.nbytes
                if size >= SORTED:
                    yield pa.Table.from_batches(batches)
                    batches, size = [], 0
    if batches:
        yield pa.Table.from_batches(batches)


def _row_groups(table: Any) -> Iterator[tuple[int, int]]:
    """Yield the first row of each row group and the first row after it."""
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.binary_length(table.column("content")), 0).to_numpy()
    start, size = 0, 0
    for row, length in enumerate(lengths.tolist()):
        if row > start and (row - start == ROWS or size + length > BYTES):
            yield start, row
            start, size = row, 0
        size += length
    if start < len(lengths):
        yield start, len(lengths)


def read_bucket(parts: Sequence[Path], bucket: int, scratch: Path, *, inline: bool) -> Iterator[Candidate]:
    """Yield the files of a bucket, ordered by the hash of their repository and by path.

    Args:
        parts: folders that :class:`BucketWriter` filled.
        bucket: its number.
        scratch: folder for what does not fit into memory.
        inline: whether the rows hold contents; then only names are sorted, and contents read in turn.
    """
    files = [str(part / bucket_file(bucket)) for part in parts]
    rows = _read_in_order(files, scratch) if inline else _read_sorted(files, scratch)
    for row in rows:
        yield Candidate(**{**row, "detected_licenses": tuple(row["detected_licenses"])})


def _columns() -> list[str]:
    return [field.name for field in fields(Candidate)]


def _read_sorted(files: list[str], scratch: Path) -> Iterator[dict[str, Any]]:
    query = f"SELECT {', '.join(_columns())} FROM read_parquet($files) ORDER BY {', '.join(_ORDER)}"
    with database(scratch) as connection:
        for batch in connection.sql(query, params={"files": files}).to_arrow_reader(BATCH):
            yield from batch.to_pylist()


class _Place(NamedTuple):
    """The place of a row, and the length of its content."""

    file: str
    row: int
    length: int


def _read_in_order(files: list[str], scratch: Path) -> Iterator[dict[str, Any]]:
    """Yield rows in order, reading neighbours together so that each row group is decoded about once."""
    names = "filename, file_row_number, length_bytes"
    source = "read_parquet($files, filename = true, file_row_number = true)"
    with database(scratch) as connection:
        found = connection.execute(
            f"SELECT {names} FROM {source} ORDER BY {', '.join(_ORDER)}", {"files": files}
        )
        reader = lru_cache(maxsize=OPEN)(_RowReader)
        for places in _together(found):
            yield from _rows_at(places, reader)


def _together(found: Any) -> Iterator[list[_Place]]:
    """Yield places in order, in groups of :data:`READ` bytes of content."""
    places, size = list[_Place](), 0
    while rows := found.fetchmany(BATCH):
        for place in map(_Place._make, rows):
            places.append(place)
            size += place.length
            if size >= READ or len(places) == ROWS * 4:
                yield places
                places, size = [], 0
    if places:
        yield places


class _RowReader:
    """Reads rows of one file by their number."""

    def __init__(self, file: str) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(file)
        groups = range(self._file.num_row_groups)
        self._starts = np.cumsum([0, *(self._file.metadata.row_group(group).num_rows for group in groups)])

    def rows(self, numbers: np.ndarray) -> Any:
        """Return a table of the rows with these ascending numbers."""
        import pyarrow as pa

        of_group = np.searchsorted(self._starts, numbers, "right") - 1
        tables = []
        for group in np.unique(of_group):
            table = self._file.read_row_group(int(group), columns=_columns(), use_threads=False)
            tables.append(table.take(pa.array(numbers[of_group == group] - self._starts[group])))
        return pa.concat_tables(tables)


def _rows_at(places: Sequence[_Place], reader: Callable[[str], _RowReader]) -> Iterator[dict[str, Any]]:
    """Yield the rows at these places, in order."""
    import pyarrow as pa

    # By number within a file, so that a row group is decoded once for all of its rows.
    order = sorted(range(len(places)), key=lambda n: (places[n].file, places[n].row))
    tables = []
    for file, group in groupby(order, key=lambda n: places[n].file):
        tables.append(reader(file).rows(np.array([places[n].row for n in group])))
    table = pa.concat_tables(tables).combine_chunks()
    del tables
    turn = np.argsort(order)
    for start in range(0, len(turn), BATCH):
        yield from table.take(pa.array(turn[start : start + BATCH])).to_pylist()
