"""One file of a dataset before its content is known, and rows of every kind of dataset as such files."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ponderttt.config import CorpusConfig
from ponderttt.corpus.files import blob_id, content_id


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


def candidates_of(kind: str, corpus: CorpusConfig, table: Any, first_row: int) -> Iterator[Candidate]:
    """The files of an Arrow table of rows.

    Args:
        kind: of the corpus.
        corpus: its settings.
        table: rows whose columns were checked.
        first_row: number of the first of them in its part.
    """
    if kind == "text":
        yield from _texts(corpus, table, first_row)
        return
    read = _stack_v3 if kind == "stack_v3" else _stack_v2
    for row in table.to_pylist():
        for entry in row["files"] or () if "files" in row else (row,):
            yield read(row, entry)


def text_columns(corpus: CorpusConfig) -> dict[str, str]:
    """The columns that are read of a corpus of kind ``text``."""
    assert corpus.hub is not None
    named = (corpus.hub.text_column, corpus.hub.repository_column, corpus.hub.path_column)
    return {column: "string" for column in named if column is not None}


def _stack_v2(row: Mapping[str, Any], entry: Mapping[str, Any]) -> Candidate:
    return Candidate(
        repo_name=row["repo_name"],
        path=entry["path"].lstrip("/"),
        blob_id=entry["blob_id"],
        content_id=entry["content_id"],
        language=entry["language"],
        license_type=entry["license_type"],
        detected_licenses=tuple(entry["detected_licenses"] or ()),
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
        detected_licenses=tuple(entry["detected_licenses"] or ()),
        src_encoding="UTF-8",
        length_bytes=len(raw) if content is not None else (entry["size_bytes"] or 0),
        is_vendor=bool(entry["is_vendor"]),
        is_generated=False,
        stars=row.get("star_events_count") or 0,
        forks=row.get("fork_events_count") or 0,
        changed=entry.get("file_timestamp") or 0,
        content=content,
    )


def _texts(corpus: CorpusConfig, table: Any, first_row: int) -> Iterator[Candidate]:
    hub = corpus.hub
    assert hub is not None
    for number, row in enumerate(table.to_pylist(), first_row):
        text = row[hub.text_column] or ""
        raw = text.encode("utf-8", "surrogatepass")
        yield Candidate(
            repo_name=row[hub.repository_column] if hub.repository_column else f"{corpus.split}",
            # Numbers of a width, so that their order is that of the rows.
            path=row[hub.path_column] if hub.path_column else f"{number:09d}",
            blob_id=blob_id(raw),
            content_id=content_id(raw),
            language=corpus.language,
            license_type="permissive",
            detected_licenses=(corpus.license,) if corpus.license else (),
            src_encoding="UTF-8",
            length_bytes=len(raw),
            is_vendor=False,
            is_generated=False,
            stars=0,
            forks=0,
            changed=0,
            content=text,
        )


def joined_documents(lines: Iterator[Candidate], start: str) -> Iterator[Candidate]:
    """Rows that are lines of one text as the documents that they make up; a line that matches ``start`` begins one."""
    begins, waiting = re.compile(start), list[Candidate]()

    def document() -> Candidate:
        text = "".join(line.content or "" for line in waiting)
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
