"""Sorting and joining of more than fits into memory, by DuckDB on files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

#: What a query may hold in memory; the rest goes to disk.
MEMORY = "256MB"
#: Of a query: the rows of many Parquet files, of which ``start + file_row_number`` is the number counted through all of them.
NUMBERED = """
FROM read_parquet($files, filename = true, file_row_number = true)
JOIN (SELECT unnest($files) AS filename, unnest($starts) AS start) USING (filename)
"""
_BATCH = 1_024


@contextlib.contextmanager
def database(scratch: Path) -> Iterator[Any]:
    """A connection whose results do not depend on the number of cores, and whose overflow lies in ``scratch``."""
    import duckdb

    scratch.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "threads": 1,
        "memory_limit": MEMORY,
        "temp_directory": str(scratch),
        # Whoever needs an order asks for it; keeping the one of a file takes memory.
        "preserve_insertion_order": False,
    }
    with duckdb.connect(config=settings) as connection:
        yield connection


def numbered(files: Sequence[Path]) -> dict[str, Any]:
    """Parameters of :data:`NUMBERED` for these files, of which there is at least one."""
    starts = [0, *accumulate(row_counts(files))][:-1]
    return {"files": [str(path) for path in files], "starts": starts}


def row_counts(files: Sequence[Path]) -> list[int]:
    """How many rows each Parquet file has."""
    import pyarrow.parquet as pq

    return [pq.read_metadata(file).num_rows for file in files]


def rows_of(
    connection: Any, query: str, parameters: dict[str, Any] | None = None
) -> Iterator[tuple[Any, ...]]:
    """The rows of an answer, a few at a time; until the last one is taken nothing else may be asked."""
    found = connection.execute(query, parameters or {})
    while rows := found.fetchmany(_BATCH):
        yield from rows
