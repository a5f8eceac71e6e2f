"""Candidates: files of a dataset before their contents are known, made from rows of every kind of dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ponderttt.corpus.files import blob_id, content_id
from ponderttt.corpus.filters import license_allowed
from ponderttt.errors import PonderTTTError
from ponderttt.settings.corpus import CorpusConfig

NEWLINE = "\n"
#: Metadata of a table of rows: its file, and how many rows of that file come before it.
_FILE, _ROW = b"file", b"row"


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
    #: Time of the last change in seconds since 1970; 0 if unknown.
    changed: int
    #: The text, if the rows hold it.
    content: str | None


def placed(table: Any, file: str, row: int) -> Any:
    """Return a table that states its file and how many rows of that file come before it."""
    return table.replace_schema_metadata({_FILE: file, _ROW: str(row)})


def candidates_of(corpus: CorpusConfig, table: Any, part: int, first_row: int) -> Iterator[Candidate | None]:
    """Yield the files of an Arrow table of rows; None for one without a name, size or content ids.

    Args:
        corpus: the settings of the corpus.
        table: rows whose columns were checked, from :func:`placed`.
        part: which part of the dataset they belong to.
        first_row: number of the first row in its part.

    Raises:
        PonderTTTError: a row has a value that cannot be read.
    """
    columns = {name: table.column(name) for name in table.column_names}
    if "revision_date" in columns:
        columns["revision_date"] = _seconds(columns["revision_date"])
    for number in range(len(table)):
        # One row at a time: it can be a repository with the contents of all its files.
        try:
            row = {name: column[number].as_py() for name, column in columns.items()}
            found = list(_files_of(corpus, row, part, first_row + number))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise _unreadable(table, number, error) from error
        yield from found


def _unreadable(table: Any, number: int, error: Exception) -> PonderTTTError:
    place = table.schema.metadata or {}
    file, before = place.get(_FILE, b"the dataset").decode(), int(place.get(_ROW, b"0"))
    return PonderTTTError(
        f"{file}, row {before + number + 1}: a value that cannot be read ({type(error).__name__}: "
        f"{' '.join(str(error).split())[:200]}); correct the file, or take another dataset"
    )


def _files_of(
    corpus: CorpusConfig, row: Mapping[str, Any], part: int, number: int
) -> Iterator[Candidate | None]:
    """Yield the files of a row: one file, or those of a repository."""
    if corpus.kind == "text":
        yield _text(corpus, row, part, number)
        return
    read, needed = (
        (_stack_v3, ("file_path",))
        if corpus.kind == "stack_v3"
        else (_stack_v2, ("path", "blob_id", "content_id"))
    )
    entries = row.get("files", [row])
    # A repository without a list of files counts as one file.
    for entry in [None] if entries is None else entries:
        # A path of slashes alone names no file.
        if entry is None or not row["repo_name"] or not all((entry[n] or "").strip("/") for n in needed):
            yield None
        else:
            yield read(row, entry)


def text_columns(corpus: CorpusConfig) -> dict[str, str]:
    """Return the columns to read for a corpus of kind ``text``: name → type."""
    assert corpus.hub is not None
    hub = corpus.hub
    named = (hub.text_column, hub.repository_column, hub.path_column, hub.license_column)
    generated = {} if hub.generated_column is None else {hub.generated_column: "bool"}
    return {column: "string" for column in named if column is not None} | generated


def _stack_v2(row: Mapping[str, Any], entry: Mapping[str, Any]) -> Candidate | None:
    size = entry["length_bytes"]
    if size is None or size < 0:
        return None
    return Candidate(
        repo_name=row["repo_name"],
        path=entry["path"].lstrip("/"),
        blob_id=entry["blob_id"],
        content_id=entry["content_id"],
        language=entry["language"] or "",
        license_type=entry["license_type"] or "no_license",
        detected_licenses=_licenses(entry["detected_licenses"]),
        src_encoding=entry["src_encoding"] or "UTF-8",
        length_bytes=_bounded(size),
        is_vendor=bool(entry["is_vendor"]),
        is_generated=bool(entry["is_generated"]),
        stars=_count(row.get("star_events_count")),
        forks=_count(row.get("fork_events_count")),
        changed=_bounded(row.get("revision_date") or 0),
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
        length_bytes=len(raw) if content is not None else _count(entry["size_bytes"]),
        is_vendor=bool(entry["is_vendor"]),
        is_generated=False,
        stars=_count(row.get("star_events_count")),
        forks=_count(row.get("fork_events_count")),
        changed=_bounded(entry.get("file_timestamp") or 0),
        content=content,
    )


def _count(number: int | None) -> int:
    """Return a count of at least 0."""
    return max(0, _bounded(number or 0))


def _bounded(number: int) -> int:
    """Return a number that fits a signed column of 64 bits; some datasets have unsigned ones."""
    return min(number, 2**63 - 1)


def _seconds(moments: Any) -> Any:
    """Convert a column of timestamps of any unit, zone and year to whole seconds since 1970."""
    import pyarrow as pa
    import pyarrow.compute as pc

    units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    unit = units[moments.type.unit] if pa.types.is_timestamp(moments.type) else 1
    return pc.divide(moments.cast(pa.int64()), pa.scalar(unit, pa.int64()))


def _licenses(found: Sequence[str | None] | None) -> tuple[str, ...]:
    return tuple(name or "unknown" for name in found or ())


def _text(corpus: CorpusConfig, row: Mapping[str, Any], part: int, number: int) -> Candidate | None:
    hub = corpus.hub
    assert hub is not None
    text = row[hub.text_column]
    raw = (text or "").encode("utf-8", "surrogatepass")
    repository = row[hub.repository_column] if hub.repository_column else corpus.split
    # Numbers of fixed width sort in the order of parts and rows.
    path = row[hub.path_column] if hub.path_column else f"{part:05d}-{number:09d}"
    if not repository or not path:
        return None
    licenses, license_type = _license_of_text(corpus, row)
    return Candidate(
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
    """Return SPDX names and the license type in The Stack's words; ``unknown`` if neither is given."""
    assert corpus.hub is not None
    column = corpus.hub.license_column
    name = corpus.license if column is None else row[column]
    if not name:
        return (), "unknown" if column is None else "no_license"
    permissive = license_allowed(name, corpus.filters.licenses)
    return (name,), "permissive" if permissive else "non_permissive"


def joined_documents(lines: Iterator[Candidate], start: str) -> Iterator[Candidate]:
    """Join rows that are lines of a text into documents; a line that matches ``start`` begins one."""
    begins, waiting = re.compile(start), list[Candidate]()

    def document() -> Candidate:
        # Some datasets keep line ends, others do not.
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
        if line.content is None:  # counted as a file without content
            yield line
            continue
        if waiting and (begins.search(line.content) or line.repo_name != waiting[0].repo_name):
            yield document()
            waiting.clear()
        waiting.append(line)
    if waiting:
        yield document()
