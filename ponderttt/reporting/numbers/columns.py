"""Typed rows as frames: each column is declared once, for writing, reading and documentation."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

import pandas as pd

from ponderttt.reporting.numbers.statistics import Interval

R = TypeVar("R")


class Estimate(NamedTuple):
    """A value with the ends of its interval and the p value of no effect; they are None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @classmethod
    def of(cls, value: float, interval: Interval | None, p: float | None = None) -> Estimate:
        """Join a value, its interval and its p value."""
        low, high = interval or (None, None)
        return cls(value, low, high, p)

    def text(self, form: str = "+.4f", scale: float = 1.0) -> str:
        """Return "value [low, high]" in a format, multiplied by a scale."""
        shown = format(scale * self.value, form)
        if self.low is None or self.high is None:
            return shown
        return f"{shown} [{scale * self.low:{form}}, {scale * self.high:{form}}]"


class Column(NamedTuple):
    """Declaration of a field of a row: ``Annotated[float, Column("what it means")]``.

    A field of type :class:`Estimate` makes three columns: its own name, ``{stem}_low`` and ``{stem}_high``, and a fourth,
    ``{name}_p``, if it is tested; one of type :class:`Interval` makes ``{stem}_low`` and ``{stem}_high``.

    Attributes:
        doc: what the columns mean; the fields after it without a declaration share it, and whether they are tested.
        stem: ``{name}_ci`` for an estimate and ``{name}`` for an interval, unless given.
        tested: whether estimates have a p value.
    """

    doc: str
    stem: str | None = None
    tested: bool = False


class _Field(NamedTuple):
    kind: type
    optional: bool
    columns: tuple[str, ...]
    doc: str


def _fields(kind: type) -> list[_Field]:
    fields: list[_Field] = []
    tested = False
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        declared, optional = Column("", tested=tested), False
        if typing.get_origin(hint) is Annotated:
            hint, declared = typing.get_args(hint)
        tested = declared.tested
        if isinstance(hint, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
            optional = True
        columns: tuple[str, ...] = (name,)
        if hint is Estimate:
            stem = declared.stem or f"{name}_ci"
            columns = (name, f"{stem}_low", f"{stem}_high", *([f"{name}_p"] if tested else []))
        elif hint is Interval:
            stem = declared.stem or name
            columns = (f"{stem}_low", f"{stem}_high")
        fields.append(_Field(hint, optional, columns, declared.doc))
    return fields


def dtypes(kind: type) -> dict[str, type]:
    """Map each column of a kind of row to its type, in their order."""
    return {
        name: float if field.kind in (Estimate, Interval) else field.kind
        for field in _fields(kind)
        for name in field.columns
    }


def optional_columns(kind: type) -> list[str]:
    """Return the columns that may have empty cells."""
    return [
        name
        for field in _fields(kind)
        for at, name in enumerate(field.columns)
        if field.optional or (field.kind is Estimate and at > 0)
    ]


def frame_of(kind: type[R], rows: Iterable[R]) -> pd.DataFrame:
    """Return rows as a frame, intervals flattened; None becomes NaN."""
    fields = _fields(kind)
    cells = []
    for row in rows:
        line: list[Any] = []
        for field, value in zip(fields, vars(row).values(), strict=True):
            if len(field.columns) == 1:
                line.append(value)
            else:
                line.extend((value or (None,) * len(field.columns))[: len(field.columns)])
        cells.append(line)
    return pd.DataFrame(cells, columns=list(dtypes(kind))).astype(dtypes(kind))


def rows_of(kind: type[R], frame: pd.DataFrame) -> list[R]:
    """Return the rows of a frame, intervals joined; NaN becomes None."""
    fields = _fields(kind)
    rows = []
    for line in frame[list(dtypes(kind))].itertuples(index=False, name=None):
        cells = iter(None if pd.isna(cell) else cell for cell in line)
        rows.append(kind(*(_joined(field, cells) for field in fields)))
    return rows


def _joined(field: _Field, cells: Iterator[Any]) -> Any:
    values = [next(cells) for _ in field.columns]
    if len(values) == 1:
        return values[0]
    return None if values[0] is None else field.kind(*values)


def documentation(kind: type) -> Iterator[str]:
    """Yield the lines of a Markdown table that says what each column means."""
    names: list[str] = []
    doc = ""
    yield "| column | meaning |"
    yield "|---|---|"
    for field in _fields(kind):
        if field.doc and names:
            yield f"| {', '.join(f'`{name}`' for name in names)} | {doc} |"
            names = []
        doc = field.doc or doc
        names.extend(field.columns)
    yield f"| {', '.join(f'`{name}`' for name in names)} | {doc} |"


def as_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV text: booleans in lower case, numbers with ten digits, empty cells for NaN."""
    flags = {
        name: frame[name].map({True: "true", False: "false"})
        for name in frame.columns
        if frame[name].dtype == bool
    }
    # Ten digits: more than any interval resolves, and a number that is read prints the same again.
    return frame.assign(**flags).to_csv(index=False, float_format="%.10g", lineterminator="\n")


def read_options(kind: type) -> Mapping[str, Any]:
    """Return the options with which :func:`pandas.read_csv` reads what :func:`as_text` wrote."""
    return {
        "dtype": dtypes(kind),
        "keep_default_na": False,
        "na_values": {name: [""] for name in optional_columns(kind)},
        "true_values": ["true"],
        "false_values": ["false"],
    }
