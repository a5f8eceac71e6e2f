"""The columns of ``paper_table.csv`` and ``seeds.csv``, and how they are written and read."""

from __future__ import annotations

import csv
import dataclasses
import io
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ponderttt.errors import CorruptFileError
from ponderttt.layout import rebuild
from ponderttt.provenance import MANIFEST, atomic_path, read_manifest, write_manifest

KIND = "table"

R = TypeVar("R", "TableRow", "SeedRow")


@dataclass(frozen=True)
class TableRow:
    """One arm on one corpus; losses and differences in nats per token, costs per chunk; ``None`` is an empty cell.

    A difference is the arm minus its reference, so below zero the arm is better; ``gain_slope`` is the growth of
    the gain (reference minus arm) from one chunk of a stream to the next.  ``budget`` is what the arm is held to, a mean
    cost per chunk in multiples of SKIP's; ``budget_error`` is what it spent, divided by that, minus one.
    """

    model: str
    fast_weights: str
    method: str
    protocol: str
    corpus: str
    language: str
    budget: float | None
    deterministic: bool
    n_seeds: int
    n_streams: int
    n_chunks: int
    n_tokens: int
    loss: float
    ci_low: float | None
    ci_high: float | None
    seed_ci_low: float | None
    seed_ci_high: float | None
    perplexity: float
    bits_per_byte: float
    delta_vs_skip: float | None
    delta_ci_low: float | None
    delta_ci_high: float | None
    delta_seed_ci_low: float | None
    delta_seed_ci_high: float | None
    delta_iqm: float | None
    p_improvement: float | None
    gain_slope: float | None
    gain_slope_ci_low: float | None
    gain_slope_ci_high: float | None
    delta_vs_plain: float | None
    delta_vs_plain_ci_low: float | None
    delta_vs_plain_ci_high: float | None
    delta_vs_context_1: float | None
    delta_vs_context_1_ci_low: float | None
    delta_vs_context_1_ci_high: float | None
    delta_vs_random: float | None
    delta_vs_random_ci_low: float | None
    delta_vs_random_ci_high: float | None
    delta_vs_fixed_flops: float | None
    delta_vs_fixed_flops_ci_low: float | None
    delta_vs_fixed_flops_ci_high: float | None
    delta_vs_fixed_seconds: float | None
    delta_vs_fixed_seconds_ci_low: float | None
    delta_vs_fixed_seconds_ci_high: float | None
    update_rate: float
    share_skip: float
    share_update_1: float
    share_update_2: float
    share_update_4: float
    rank_gap: float | None
    cost_nominal: float
    cost_flops: float
    cost_seconds: float
    budget_error: float | None
    recovery_vs_skip: float | None
    recovery_vs_random: float | None
    note: str
    run_digest: str
    code_digest: str

    @property
    def label(self) -> str:
        """How figures and sentences name the arm."""
        return self.method if self.fast_weights == "none" else f"{self.fast_weights} {self.method}"


@dataclass(frozen=True)
class SeedRow:
    """One seed of an arm, the raw values behind the seed intervals."""

    model: str
    fast_weights: str
    method: str
    protocol: str
    corpus: str
    language: str
    seed: int
    deterministic: bool
    loss: float
    delta_vs_skip: float | None
    delta_vs_plain: float | None
    update_rate: float
    cost_nominal: float
    cost_flops: float
    cost_seconds: float
    run_digest: str


def write_rows(
    table: Path, rows: Sequence[TableRow], seeds: Path, seed_rows: Sequence[SeedRow], facts: Mapping[str, Any]
) -> None:
    """Write both files and, last, the manifest beside them.

    Raises:
        ValueError: the files are not in one folder.
        PonderTTTError: the disk is full.
    """
    if table.parent != seeds.parent:
        raise ValueError(f"{table} and {seeds} share a manifest, so they must lie in one folder")
    (table.parent / MANIFEST).unlink(missing_ok=True)
    for path, lines in ((table, rows), (seeds, seed_rows)):
        with atomic_path(path) as temporary:
            temporary.write_text(_as_csv(lines))
    write_manifest(table.parent, KIND, {table.name: len(rows), seeds.name: len(seed_rows)}, facts)


def read_table(path: Path | str) -> list[TableRow]:
    """Read and verify ``paper_table.csv``.

    Raises:
        CorruptFileError: missing, damaged, edited by hand, or of other columns.
    """
    return _read(Path(path), TableRow)


def read_seeds(path: Path | str) -> list[SeedRow]:
    """Read and verify ``seeds.csv``; raises as :func:`read_table` does."""
    return _read(Path(path), SeedRow)


def table_manifest(path: Path | str) -> dict[str, Any]:
    """The verified manifest of the folder that holds ``path``."""
    return read_manifest(Path(path).parent, KIND, rebuild(path))


def _read(path: Path, kind: type[R]) -> list[R]:
    if path.name not in table_manifest(path)["files"]:
        raise CorruptFileError(f"{path}: its folder's manifest does not name it. Rebuild it: {rebuild(path)}")
    types_of = typing.get_type_hints(kind)
    with path.open(newline="") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != tuple(types_of):
            raise CorruptFileError(
                f"{path}: its columns are not those of this version. Rebuild it: {rebuild(path)}"
            )
        return [kind(**{key: _parse(types_of[key], text) for key, text in line.items()}) for line in reader]


def _parse(kind: Any, text: str) -> Any:
    if isinstance(kind, types.UnionType):
        return float(text) if text else None
    return text == "true" if kind is bool else kind(text)


def _format(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    # Ten digits: more than any interval resolves, and a re-read number prints the same again.
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _as_csv(rows: Sequence[TableRow] | Sequence[SeedRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(rows[0]))
    for row in rows:
        writer.writerow(_format(value) for value in dataclasses.astuple(row))
    return text.getvalue()
