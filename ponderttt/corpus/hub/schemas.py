"""The columns in use of each kind of dataset, and their check against the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ponderttt.errors import PonderTTTError

#: Column of a row (or of an entry of ``files``) → its type; ``?`` marks a column that may be missing.
FILE = {
    "blob_id": "string",
    "path": "string",
    "content_id": "string",
    "detected_licenses": "list<string>",
    "license_type": "string",
    "src_encoding": "string",
    "is_vendor": "bool",
    "is_generated": "bool",
    "length_bytes": "integer",
}
REPOSITORY = {
    "repo_name": "string",
    "star_events_count": "integer?",
    "fork_events_count": "integer?",
    "revision_date": "timestamp?",
}
STACK_V2 = {**FILE, **REPOSITORY, "language": "string"}
STACK_V2_IDS = {**REPOSITORY, "files": {**FILE, "language": "string"}}
STACK_V3 = {
    "repo_name": "string",
    "star_events_count": "integer?",
    "files": {
        "file_path": "string",
        "content": "string",
        "content_id": "string",
        "language": "string",
        "license_type": "string",
        "detected_licenses": "list<string>",
        "is_vendor": "bool",
        "size_bytes": "integer",
        "file_timestamp": "integer?",
    },
}

Columns = Mapping[str, Any]


def columns_of(kind: str, by_repository: bool, text: Columns) -> Columns:
    """Return the columns in use of a dataset.

    Args:
        kind: kind of the corpus.
        by_repository: whether a row has a column ``files``.
        text: the columns of a corpus of kind ``text``.
    """
    if kind == "text":
        return text
    if kind == "stack_v3":
        return STACK_V3
    return STACK_V2_IDS if by_repository else STACK_V2


def check_columns(columns: Columns, schema: Any, name: str) -> None:
    """Compare the schema of a file with the columns in use.

    Raises:
        PonderTTTError: columns are missing or of another type; the message names all of them.
    """
    check_differences(_differences(columns, {field.name: field.type for field in schema}, ""), name)


def check_differences(found: Iterable[str], name: str) -> None:
    """Raise PonderTTTError, which names all differences, if there are any."""
    wrong = list(found)
    if wrong:
        raise PonderTTTError(
            f"{name}: its columns differ from the expected ones: {'; '.join(wrong)}. Check hub.revision and hub.config, or "
            "take another dataset"
        )


def is_optional(wanted: Any) -> bool:
    """Return whether a column of this declared type may be missing."""
    return isinstance(wanted, str) and wanted.endswith("?")


def arrow_schema(columns: Columns) -> Any:
    """Return the Arrow schema of columns, for files whose values have no declared types."""
    import pyarrow as pa

    return pa.schema(_fields(columns))


def _fields(columns: Columns) -> list[Any]:
    import pyarrow as pa

    kinds = {
        "string": pa.string(),
        "bool": pa.bool_(),
        "integer": pa.int64(),
        "timestamp": pa.timestamp("us"),
        "list<string>": pa.list_(pa.string()),
    }
    return [
        pa.field(name, kinds[wanted.rstrip("?")])
        if isinstance(wanted, str)
        else pa.field(name, pa.list_(pa.struct(_fields(wanted))))
        for name, wanted in columns.items()
    ]


def _differences(columns: Columns, found: Mapping[str, Any], inside: str) -> Any:
    import pyarrow as pa

    for column, wanted in columns.items():
        title = inside + column
        if column not in found:
            if not is_optional(wanted):
                yield f"{title} is missing"
            continue
        kind = found[column]
        if isinstance(wanted, str):
            if not _fits(kind, wanted.rstrip("?")):
                yield f"{title} is {kind}, not {wanted.rstrip('?')}"
        elif not (_is_list(kind) and pa.types.is_struct(kind.value_type)):
            yield f"{title} is {kind}, not a list of files"
        else:
            inner = kind.value_type
            fields = {inner.field(i).name: inner.field(i).type for i in range(inner.num_fields)}
            yield from _differences(wanted, fields, f"{title}.")


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _fits(kind: Any, wanted: str) -> bool:
    import pyarrow as pa

    # A column of nulls alone has no type.
    if pa.types.is_null(kind):
        return True
    return {
        "string": _is_text,
        "bool": pa.types.is_boolean,
        "integer": pa.types.is_integer,
        "timestamp": pa.types.is_timestamp,
        "list<string>": lambda k: _is_list(k) and (_is_text(k.value_type) or pa.types.is_null(k.value_type)),
    }[wanted](kind)
