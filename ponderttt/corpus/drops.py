"""Count dropped files by reason: while a corpus is built, in its manifest, and in a report."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ponderttt.files.atomic import atomic_path
from ponderttt.files.manifest import read_manifest

#: The "reason" of the files that stay, in reports.
KEPT = "kept"


class Count(NamedTuple):
    """A number of files and their bytes."""

    files: int
    bytes: int


class DropRow(NamedTuple):
    """One line of the drop report."""

    corpus: str
    reason: str
    files: int
    bytes: int


class Drops:
    """Counts of dropped files by reason."""

    def __init__(self) -> None:
        self._counts: dict[str, Count] = {}

    def add(self, reason: str, size: int) -> None:
        """Count one file of ``size`` bytes."""
        files, total = self._counts.get(reason, Count(0, 0))
        self._counts[reason] = Count(files + 1, total + size)

    def add_facts(self, facts: Mapping[str, Mapping[str, int]]) -> None:
        """Add the counts of another job, see :meth:`as_facts`."""
        for reason, found in facts.items():
            files, total = self[reason]
            self._counts[reason] = Count(files + found["files"], total + found["bytes"])

    def __getitem__(self, reason: str) -> Count:
        return self._counts.get(reason, Count(0, 0))

    def as_facts(self) -> dict[str, dict[str, int]]:
        """Return the counts for a manifest: reason → ``{"files": …, "bytes": …}``."""
        return {reason: count._asdict() for reason, count in sorted(self._counts.items())}

    def in_words(self) -> str:
        """Return the counts for a message, the most frequent reason first."""
        by_count = sorted(self._counts.items(), key=lambda item: (-item[1].files, item[0]))
        return ", ".join(f"{reason} {count.files}" for reason, count in by_count) or "no files were found"


def drop_rows(corpus: str, facts: Mapping[str, Any]) -> list[DropRow]:
    """Return the report of one corpus from its shards' facts: the files kept, then each reason."""
    kept = DropRow(corpus, KEPT, facts["kept"]["files"], facts["kept"]["bytes"])
    drops = [DropRow(corpus, reason, c["files"], c["bytes"]) for reason, c in sorted(facts["drops"].items())]
    return [kept, *drops]


def write_drop_report(target: Path | str, shard_folders: Iterable[Path | str], rebuild: str) -> list[DropRow]:
    """Write a CSV report with the columns ``corpus,reason,files,bytes`` for the shards of several corpora.

    Raises:
        CorruptFileError: a folder has no manifest of shards; the message ends with ``rebuild``.
    """
    rows: list[DropRow] = []
    for folder in shard_folders:
        facts = read_manifest(folder, "shards", rebuild, verify=False)["facts"]
        rows += drop_rows(facts["corpus"], facts)
    with atomic_path(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(DropRow._fields)
        writer.writerows(rows)
    return rows


def format_drop_report(rows: Iterable[DropRow]) -> str:
    """Format the rows as an aligned text table."""
    cells = [tuple(map(str, row)) for row in (DropRow._fields, *rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(DropRow._fields))]
    return "\n".join(
        f"{corpus:<{widths[0]}}  {reason:<{widths[1]}}  {files:>{widths[2]}}  {size:>{widths[3]}}"
        for corpus, reason, files, size in cells
    )
