"""Sorting and joining of more than fits into memory, by DuckDB on files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: What a query may hold in memory; the rest goes to disk.
MEMORY = "256MB"


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
