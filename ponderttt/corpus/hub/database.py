"""Sort and join more than fits into memory, with DuckDB on files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

#: Most memory of a query; the rest goes to disk.
MEMORY = "256MB"
#: Part of a query: the rows of many Parquet files; ``start + file_row_number`` numbers them over all files.
NUMBERED = """
FROM read_parquet($files, filename = true, file_row_number = true)
JOIN (SELECT unnest($files) AS filename, unnest($starts) AS start) USING (filename)
"""
_BATCH = 1_024


@contextlib.contextmanager
def database(scratch: Path) -> Iterator[Any]:
    """Open a connection whose results do not depend on the number of cores; it overflows into ``scratch``."""
    import duckdb

    scratch.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "threads": 1,
        "memory_limit": MEMORY,
        "temp_directory": str(scratch),
        # Queries that need an order state it; keeping the order of files takes memory.
        "preserve_insertion_order": False,
    }
    with duckdb.connect(config=settings) as connection:
        yield connection


def numbered(files: Sequence[Path]) -> dict[str, Any]:
    """Return the parameters of :data:`NUMBERED` for at least one file."""
    starts = [0, *accumulate(row_counts(files))][:-1]
    return {"files": [str(path) for path in files], "starts": starts}


def row_counts(files: Sequence[Path]) -> list[int]:
    """Return the number of rows of each Parquet file."""
    import pyarrow.parquet as pq

    return [pq.read_metadata(file).num_rows for file in files]


def rows_of(
    connection: Any, query: str, parameters: dict[str, Any] | None = None
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of an answer; the connection must not run another query before the last one."""
    found = connection.execute(query, parameters or {})
    while rows := found.fetchmany(_BATCH):
        yield from rows
