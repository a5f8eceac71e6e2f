"""What one job leaves for another: selected files, spread over buckets by the stable hash of their repository.

Whatever part of a dataset a file was in, its repository has one bucket, so that a repository is read, deduplicated and
split as a whole.
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

#: Bytes of all buckets together that wait in memory, and about what a file takes besides its content.
PENDING, FILE = 128 << 20, 1_500
#: Rows and bytes of content of a row group: what is decoded for the sake of one file.
ROWS, BYTES = 4_096, 256 << 10
#: Bytes of a bucket that are sorted at once in memory.
SORTED = 64 << 20
#: Bytes of content that are read together, rows that become objects together, and files that stay open meanwhile.
READ, BATCH, OPEN = 64 << 20, 128, 16
_ORDER = ("hash", "repo_name", "path", "blob_id")


def bucket_of(repository: str, buckets: int, hash_from: float = 0.0, hash_to: float = 1.0) -> int:
    """The bucket of a repository: one of so many equal slices of a range of hashes, the nearest if it lies outside."""
    share = (stable_hash(repository) - hash_from) / (hash_to - hash_from)
    return min(max(int(share * buckets), 0), buckets - 1)


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
    """Writes files to their buckets; every bucket has a file, maybe an empty one.

    Neither memory nor open files grow with the number of buckets: what waits for all of them together is limited, a bucket
    that gives way is appended to a file of its own, and only one file is open at a time.

    Args:
        folder: gets a file for each bucket.
        buckets: how many.
        hash_from: where the hashes of the repositories begin; buckets are equal slices from there ...
        hash_to: ... to below here.
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
        """Write a file, sooner or later."""
        bucket = bucket_of(file.repo_name, len(self._waiting), *self._range)
        # A text with a single rare letter takes up to four bytes for each of its letters.
        size = FILE + sys.getsizeof(file.content)
        self._waiting[bucket].append(file)
        self._sizes[bucket] += size
        self._total += size
        while self._total > PENDING:
            # The largest, the first of equal ones: which it is depends on the files alone.
            self._spill(self._sizes.index(max(self._sizes)))

    def _spill(self, bucket: int) -> None:
        """Append what waits for a bucket to its file, as one more Arrow stream behind those that are there."""
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
        """The spilled files of a bucket in order, a portion at a time, in row groups that are small to decode."""
        import pyarrow.parquet as pq

        # Nobody looks for a row group by its statistics, and of many small groups they would be much of the file.
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
    """Tables of the streams in a file, of :data:`SORTED` bytes each."""
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
    """First row of each row group, and the first behind it."""
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


def _columns() -> list[str]:
    return [field.name for field in fields(Candidate)]


def _read_sorted(files: list[str], scratch: Path) -> Iterator[dict[str, Any]]:
    query = f"SELECT {', '.join(_columns())} FROM read_parquet($files) ORDER BY {', '.join(_ORDER)}"
    with database(scratch) as connection:
        for batch in connection.sql(query, params={"files": files}).to_arrow_reader(BATCH):
            yield from batch.to_pylist()


class _Place(NamedTuple):
    """Where a row is, and how long its content."""

    file: str
    row: int
    length: int


def _read_in_order(files: list[str], scratch: Path) -> Iterator[dict[str, Any]]:
    """Rows that follow each other are read together, so that each row group is decoded about once."""
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
    """Places in order, :data:`READ` bytes of content at a time."""
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
    """Rows of one file by their number."""

    def __init__(self, file: str) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(file)
        groups = range(self._file.num_row_groups)
        self._starts = np.cumsum([0, *(self._file.metadata.row_group(group).num_rows for group in groups)])

    def rows(self, numbers: np.ndarray) -> Any:
        """A table of the rows of these numbers, which ascend."""
        import pyarrow as pa

        of_group = np.searchsorted(self._starts, numbers, "right") - 1
        tables = []
        for group in np.unique(of_group):
            table = self._file.read_row_group(int(group), columns=_columns(), use_threads=False)
            tables.append(table.take(pa.array(numbers[of_group == group] - self._starts[group])))
        return pa.concat_tables(tables)


def _rows_at(places: Sequence[_Place], reader: Callable[[str], _RowReader]) -> Iterator[dict[str, Any]]:
    """The rows at these places, in their order."""
    import pyarrow as pa

    # Within a file by number, so that a row group is decoded once for all of its rows.
    order = sorted(range(len(places)), key=lambda n: (places[n].file, places[n].row))
    tables = []
    for file, group in groupby(order, key=lambda n: places[n].file):
        tables.append(reader(file).rows(np.array([places[n].row for n in group])))
    table = pa.concat_tables(tables).combine_chunks()
    del tables
    turn = np.argsort(order)
    for start in range(0, len(turn), BATCH):
        yield from table.take(pa.array(turn[start : start + BATCH])).to_pylist()
