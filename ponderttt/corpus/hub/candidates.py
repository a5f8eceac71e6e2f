"""One file of a dataset before its content is known, and rows of every kind of dataset as such files."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ponderttt.config import CorpusConfig
from ponderttt.corpus.files import blob_id, content_id
from ponderttt.corpus.filters import license_allowed

NEWLINE = "\n"


@dataclass(frozen=True)
class Candidate:
    """A file that may become part of a corpus."""

    repo_name: str
    path: str
    blob_id: str
    content_id: str
    language: str
    license_type: str
    detected_licenses: tuple[str, ...]
    src_encoding: str
    length_bytes: int
    is_vendor: bool
    is_generated: bool
    stars: int
    forks: int
    #: Seconds since 1970 of its last change, 0 where nobody says.
    changed: int
    #: Where the dataset brings it along.
    content: str | None


def candidates_of(corpus: CorpusConfig, table: Any, part: int, first_row: int) -> Iterator[Candidate | None]:
    """The files of an Arrow table of rows; ``None`` for one that lacks its name, or what names its content.

    Args:
        corpus: its settings.
        table: rows whose columns were checked.
        part: which part of the dataset they are of.
        first_row: number of the first of them in its part.
    """
    if corpus.kind == "text":
        yield from _texts(corpus, table, part, first_row)
        return
    read, needed = (
        (_stack_v3, ("file_path",))
        if corpus.kind == "stack_v3"
        else (_stack_v2, ("path", "blob_id", "content_id"))
    )
    for row in table.to_pylist():
        for entry in row["files"] or () if "files" in row else (row,):
            known = entry is not None and row["repo_name"] and all(entry[name] for name in needed)
            yield read(row, entry) if known else None


def text_columns(corpus: CorpusConfig) -> dict[str, str]:
    """The columns that are read of a corpus of kind ``text``."""
    assert corpus.hub is not None
    hub = corpus.hub
    named = (hub.text_column, hub.repository_column, hub.path_column, hub.license_column)
    generated = {} if hub.generated_column is None else {hub.generated_column: "bool"}
    return {column: "string" for column in named if column is not None} | generated


def _stack_v2(row: Mapping[str, Any], entry: Mapping[str, Any]) -> Candidate:
    return Candidate(
        repo_name=row["repo_name"],
        path=entry["path"].lstrip("/"),
        blob_id=entry["blob_id"],
        content_id=entry["content_id"],
        language=entry["language"] or "",
        license_type=entry["license_type"] or "no_license",
        detected_licenses=_licenses(entry["detected_licenses"]),
        src_encoding=entry["src_encoding"] or "UTF-8",
        length_bytes=entry["length_bytes"] or 0,
        is_vendor=bool(entry["is_vendor"]),
        is_generated=bool(entry["is_generated"]),
        stars=row.get("star_events_count") or 0,
        forks=row.get("fork_events_count") or 0,
        changed=_seconds(row.get("revision_date")),
        content=None,
    )


def _stack_v3(row: Mapping[str, Any], entry: Mapping[str, Any]) -> Candidate:
    content = entry["content"]
    raw = b"" if content is None else content.encode("utf-8", "surrogatepass")
    return Candidate(
        repo_name=row["repo_name"],
        path=entry["file_path"].lstrip("/"),
        blob_id=blob_id(raw),
        content_id=entry["content_id"] or content_id(raw),
        language=entry["language"] or "",
        license_type=entry["license_type"] or "no_license",
        detected_licenses=_licenses(entry["detected_licenses"]),
        src_encoding="UTF-8",
        length_bytes=len(raw) if content is not None else (entry["size_bytes"] or 0),
        is_vendor=bool(entry["is_vendor"]),
        is_generated=False,
        stars=row.get("star_events_count") or 0,
        forks=row.get("fork_events_count") or 0,
        changed=entry.get("file_timestamp") or 0,
        content=content,
    )


def _licenses(found: Sequence[str | None] | None) -> tuple[str, ...]:
    return tuple(name or "unknown" for name in found or ())


def _texts(corpus: CorpusConfig, table: Any, part: int, first_row: int) -> Iterator[Candidate | None]:
    hub = corpus.hub
    assert hub is not None
    for number, row in enumerate(table.to_pylist(), first_row):
        text = row[hub.text_column] or ""
        raw = text.encode("utf-8", "surrogatepass")
        repository = row[hub.repository_column] if hub.repository_column else corpus.split
        # Numbers of a width, so that their order is that of the rows, of one part after the other.
        path = row[hub.path_column] if hub.path_column else f"{part:05d}-{number:09d}"
        if not repository or not path:
            yield None
            continue
        licenses, license_type = _license_of_text(corpus, row)
        yield Candidate(
            repo_name=repository,
            path=path,
            blob_id=blob_id(raw),
            content_id=content_id(raw),
            language=corpus.language,
            license_type=license_type,
            detected_licenses=licenses,
            src_encoding="UTF-8",
            length_bytes=len(raw),
            is_vendor=False,
            is_generated=bool(hub.generated_column and row[hub.generated_column]),
            stars=0,
            forks=0,
            changed=0,
            content=text,
        )


def _license_of_text(corpus: CorpusConfig, row: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """SPDX names, and the type that they have in The Stack's words; ``unknown`` where nobody says."""
    assert corpus.hub is not None
    column = corpus.hub.license_column
    name = corpus.license if column is None else row[column]
    if not name:
        return (), "unknown" if column is None else "no_license"
    permissive = license_allowed(name, corpus.filters.licenses)
    return (name,), "permissive" if permissive else "non_permissive"


def joined_documents(lines: Iterator[Candidate], start: str) -> Iterator[Candidate]:
    """Rows that are lines of one text as the documents that they make up; a line that matches ``start`` begins one."""
    begins, waiting = re.compile(start), list[Candidate]()

    def document() -> Candidate:
        # Some datasets keep the end of a line and others do not.
        text = "".join(f"{line.removesuffix(NEWLINE)}\n" for line in (row.content or "" for row in waiting))
        raw = text.encode("utf-8", "surrogatepass")
        first = waiting[0]
        return Candidate(
            **{
                **vars(first),
                "content": text,
                "blob_id": blob_id(raw),
                "content_id": content_id(raw),
                "length_bytes": len(raw),
            }
        )

    for line in lines:
        if waiting and (begins.search(line.content or "") or line.repo_name != waiting[0].repo_name):
            yield document()
            waiting.clear()
        waiting.append(line)
    if waiting:
        yield document()


def _seconds(moment: datetime.datetime | None) -> int:
    return 0 if moment is None else int(moment.replace(tzinfo=datetime.UTC).timestamp())
