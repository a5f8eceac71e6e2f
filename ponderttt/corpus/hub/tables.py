"""Read one data file a few rows at a time: Parquet, JSON, or the lines of a text.

Only the columns in use are decoded, so other columns do no harm.  No file is in memory as a whole, except one that is a
single JSON array.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ponderttt.corpus.hub.schemas import (
    Columns,
    arrow_schema,
    check_columns,
    check_differences,
    columns_of,
    is_optional,
)
from ponderttt.errors import PonderTTTError

#: Rows of a table; one row can be a repository with hundreds of files.
BATCH = 32
#: Bytes of text or JSON to parse together.
BLOCK = 10 << 20
#: Bytes of a Parquet column to fetch together.
BUFFER = 4 << 20
SUFFIXES = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".gz": "json", ".txt": "text"}
#: Arrow's words for a value of another type, and for the row of an error in a block.
_CHANGED = re.compile(r"Column\(/?(.*)\) changed from (.*) to (\w+)")
_ROW = re.compile(r" in row (\d+)\s*$")


def tables_of(file: str, kind: str, text: Columns, name: str) -> Iterator[Any]:
    """Yield the rows of a file as Arrow tables of at most :data:`BATCH` rows, with the columns in use.

    Args:
        file: path, or address on the hub.
        kind: kind of the corpus.
        text: the columns of a corpus of kind ``text``.
        name: name of the file in messages.

    Raises:
        PonderTTTError: a column is missing or of another type, anywhere in the file.
    """
    reader = {"parquet": _parquet, "json": _json, "text": _lines}[kind_of(file)]
    with _opened(file) as handle:
        yield from reader(handle, kind, text, name)


def kind_of(file: str) -> str:
    """Return ``parquet``, ``json`` or ``text``.

    Raises:
        PonderTTTError: the suffix of the file is unknown.
    """
    suffix = Path(file).suffix
    if suffix not in SUFFIXES:
        raise PonderTTTError(
            f"{file}: unknown kind of file; known: {', '.join(sorted(SUFFIXES))}: check hub.config and hub.dataset_split"
        )
    return SUFFIXES[suffix]


@contextmanager
def _opened(file: str) -> Iterator[Any]:
    with ExitStack() as stack:
        if "://" in file:
            from datasets.utils.file_utils import xopen  # retries when a connection breaks

            source = stack.enter_context(xopen(file, "rb"))
        else:
            source = stack.enter_context(Path(file).open("rb"))
        yield stack.enter_context(gzip.GzipFile(fileobj=source)) if file.endswith(".gz") else source


def _parquet(handle: BinaryIO, kind: str, text: Columns, name: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Unlike Arrow's datasets, this reader does not decode whole row groups for a small batch.
    file = pq.ParquetFile(handle, buffer_size=BUFFER, pre_buffer=False)
    schema = file.schema_arrow
    columns = columns_of(kind, "files" in schema.names, text)
    check_columns(columns, schema, name)
    read = [column for column in columns if column in schema.names]
    for batch in file.iter_batches(BATCH, columns=read, use_threads=False):
        yield pa.Table.from_batches([batch])


def _lines(handle: BinaryIO, kind: str, text: Columns, name: str) -> Iterator[Any]:
    import pyarrow as pa

    schema = pa.schema([pa.field("text", pa.string())])
    check_columns(columns_of(kind, False, text), schema, name)
    file = io.TextIOWrapper(handle, encoding="utf-8")
    while lines := file.readlines(BLOCK):
        yield from _sliced(pa.table({"text": lines}, schema=schema))


def _json(handle: BinaryIO, kind: str, text: Columns, name: str) -> Iterator[Any]:
    """Read JSON with the types that the columns must have, not those that Arrow would infer from a block."""
    import pyarrow as pa
    from pyarrow import json as reader

    columns, rows = dict[str, Any](), 0
    for block in _json_blocks(handle, name):
        columns = columns or dict(columns_of(kind, _has_key(block, "files"), text))
        try:
            table = reader.read_json(
                io.BytesIO(block),
                read_options=reader.ReadOptions(use_threads=False, block_size=len(block) + 1),
                parse_options=reader.ParseOptions(
                    explicit_schema=arrow_schema(columns), unexpected_field_behavior="ignore"
                ),
            )
        except pa.ArrowInvalid as error:
            raise _invalid(str(error), rows, name) from None
        found = {column: table.column(column) for column in columns}
        check_differences(_absent(columns, found, block, ""), f"{name}, after row {rows}")
        yield from _sliced(table)
        rows += len(table)


def _json_blocks(handle: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield blocks of whole JSON lines, about :data:`BLOCK` bytes each; an array becomes one object per line."""
    block = handle.read(BLOCK).removeprefix(codecs.BOM_UTF8)
    if block.lstrip().startswith(b"["):
        objects = json.loads(block + handle.read())
        if not all(isinstance(entry, dict) for entry in objects):
            raise PonderTTTError(f"{name}: an array with values other than objects; write one object per row")
        block = "\n".join(json.dumps(entry, ensure_ascii=False) for entry in objects).encode()
    while block:
        block += handle.readline()
        if not block.isspace():
            yield block if block.endswith(b"\n") else block + b"\n"
        block = handle.read(BLOCK)


def _has_key(block: bytes, name: str) -> bool:
    """Return whether an object in a block of JSON has a key; inside a string its quotes would be escaped."""
    spelled = re.escape(json.dumps(name, ensure_ascii=False).encode())
    return re.search(spelled + rb"\s*:", block) is not None


def _absent(columns: Columns, found: Mapping[str, Any], block: bytes, inside: str) -> Iterator[str]:
    """Yield the columns that all rows of a block lack; a column that only some rows lack counts as null there."""
    import pyarrow.compute as pc

    for column, wanted in columns.items():
        values = found[column]
        unused = 0 < len(values) == values.null_count and not _has_key(block, column)
        if unused and not is_optional(wanted):
            yield f"{inside}{column} is missing"
        elif not isinstance(wanted, str):
            entries = pc.list_flatten(values).drop_null()
            fields = {field: pc.struct_field(entries, field) for field in wanted}
            yield from _absent(wanted, fields, block, f"{inside}{column}.")


def _invalid(said: str, rows: int, name: str) -> PonderTTTError:
    """Return the error for what Arrow says about a block of JSON that comes after ``rows`` rows."""
    remedy = "correct the file, or take another dataset"
    numbered = _ROW.search(said)
    where = f"row {rows + int(numbered[1]) + 1}" if numbered else f"after row {rows}"
    if changed := _CHANGED.search(said):
        column, wanted, found = changed.groups()
        title = column.replace("/[]/", ".").replace("/", ".")
        return PonderTTTError(f"{name}, {where}: {title} is {found}, not {wanted}; {remedy}")
    return PonderTTTError(
        f"{name}, {where}: not readable as rows of JSON ({' '.join(said.split())[:200]}); {remedy}"
    )


def _sliced(table: Any) -> Iterator[Any]:
    for start in range(0, len(table), BATCH):
        yield table.slice(start, BATCH)
