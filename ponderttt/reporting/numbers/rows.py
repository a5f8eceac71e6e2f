"""The columns of the files of numbers in the results folder, and how they are written and read."""

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
from ponderttt.files.atomic import atomic_path
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST, read_manifest, write_manifest

KIND = "table"

#: Names of the files beside the table.
FRONTIER, SIGNALS = "frontier.csv", "signals.csv"

R = TypeVar("R")


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
    delta_vs_update_1: float | None
    delta_vs_update_1_ci_low: float | None
    delta_vs_update_1_ci_high: float | None
    delta_vs_fixed_flops: float | None
    delta_vs_fixed_flops_ci_low: float | None
    delta_vs_fixed_flops_ci_high: float | None
    delta_vs_fixed_seconds: float | None
    delta_vs_fixed_seconds_ci_low: float | None
    delta_vs_fixed_seconds_ci_high: float | None
    delta_vs_rule: float | None
    delta_vs_rule_ci_low: float | None
    delta_vs_rule_ci_high: float | None
    best_rule: str | None
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


@dataclass(frozen=True)
class FrontierRow:
    """One arm at one measure of cost, with what is known of its policy; losses in nats per token, costs per chunk.

    ``on_front`` says that no arm of the model and corpus that a user could run costs less and loses less: oracles and
    what learns from the wrong thing are no such arms.  Areas are mean losses over the costs from ``range_low`` to
    ``range_high``, which the policy, random decisions and fixed schedules reach; ``None`` where a policy has a single
    cost.
    """

    model: str
    fast_weights: str
    policy: str
    corpus: str
    cost_measure: str
    method: str
    budget: float | None
    cost: float
    loss: float
    on_front: bool
    n_costs: int
    range_low: float | None
    range_high: float | None
    area: float | None
    area_ci_low: float | None
    area_ci_high: float | None
    area_vs_random: float | None
    area_vs_random_ci_low: float | None
    area_vs_random_ci_high: float | None
    area_vs_fixed: float | None
    area_vs_fixed_ci_low: float | None
    area_vs_fixed_ci_high: float | None


@dataclass(frozen=True)
class SignalRow:
    """How well one feature of chunk t predicts what an update there gains at chunk t+1, in the oracle's look-ahead.

    ``rho`` is the rank correlation over all chunks, ``rho_within`` that of ranks taken within each stream; both are
    means over seeds, with a bootstrap over streams.  ``None`` where the feature or the gain does not vary.
    """

    model: str
    fast_weights: str
    method: str
    corpus: str
    feature: str
    group: str
    action: str
    n_seeds: int
    n_streams: int
    n_chunks: int
    rho: float | None
    rho_ci_low: float | None
    rho_ci_high: float | None
    rho_within: float | None
    rho_within_ci_low: float | None
    rho_within_ci_high: float | None


def write_rows(files: Mapping[Path, tuple[type, Sequence[Any]]], facts: Mapping[str, Any]) -> None:
    """Write files of numbers and, last, the manifest beside them.

    Args:
        files: path → kind of its rows, and the rows; there may be none.
        facts: of the manifest.

    Raises:
        ValueError: the files are not in one folder.
        PonderTTTError: the disk is full.
    """
    folders = {path.parent for path in files}
    if len(folders) != 1:
        raise ValueError(f"{', '.join(map(str, files))} share a manifest, so they must lie in one folder")
    folder = folders.pop()
    (folder / MANIFEST).unlink(missing_ok=True)
    for path, (kind, rows) in files.items():
        with atomic_path(path) as temporary:
            temporary.write_text(_as_csv(kind, rows), encoding="utf-8")
    write_manifest(folder, KIND, {path.name: len(rows) for path, (_, rows) in files.items()}, facts)


def read_table(path: Path | str) -> list[TableRow]:
    """Read and verify ``paper_table.csv``.

    Raises:
        CorruptFileError: missing, damaged, edited by hand, or of other columns.
    """
    return _read(Path(path), TableRow)


def read_seeds(path: Path | str) -> list[SeedRow]:
    """Read and verify ``seeds.csv``; raises as :func:`read_table` does."""
    return _read(Path(path), SeedRow)


def read_frontier(path: Path | str) -> list[FrontierRow]:
    """Read and verify ``frontier.csv``; raises as :func:`read_table` does."""
    return _read(Path(path), FrontierRow)


def read_signals(path: Path | str) -> list[SignalRow]:
    """Read and verify ``signals.csv``; raises as :func:`read_table` does."""
    return _read(Path(path), SignalRow)


def without_control_corpora(path: Path | str, rows: Sequence[R]) -> list[R]:
    """``rows`` of the results folder of ``path`` but those of its control corpora, which no figure shows."""
    controls = table_manifest(path)["facts"]["control_corpora"]
    return [row for row in rows if typing.cast(Any, row).corpus not in controls]


def groups_of(rows: Sequence[Any]) -> list[tuple[str, str]]:
    """The (corpus, model) pairs of rows, in their order; arms are compared within one of them only."""
    return list(dict.fromkeys((row.corpus, row.model) for row in rows))


def of_group(rows: Sequence[R], group: tuple[str, str]) -> list[R]:
    """The rows of one (corpus, model)."""
    return [row for row in rows if (typing.cast(Any, row).corpus, typing.cast(Any, row).model) == group]


def table_manifest(path: Path | str) -> dict[str, Any]:
    """The verified manifest of the folder that holds ``path``."""
    return read_manifest(Path(path).parent, KIND, rebuild(path))


def _read(path: Path, kind: type[R]) -> list[R]:
    if path.name not in table_manifest(path)["files"]:
        raise CorruptFileError(f"{path}: its folder's manifest does not name it. Rebuild it: {rebuild(path)}")
    types_of = typing.get_type_hints(kind)
    with path.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != tuple(types_of):
            raise CorruptFileError(
                f"{path}: its columns are not those of this version. Rebuild it: {rebuild(path)}"
            )
        return [kind(**{key: _parse(types_of[key], text) for key, text in line.items()}) for line in reader]


def _parse(kind: Any, text: str) -> Any:
    if isinstance(kind, types.UnionType):
        inner = next(part for part in typing.get_args(kind) if part is not type(None))
        return inner(text) if text else None
    return text == "true" if kind is bool else kind(text)


def _format(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    # Ten digits: more than any interval resolves, and a re-read number prints the same again.
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _as_csv(kind: Any, rows: Sequence[Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(kind))
    for row in rows:
        writer.writerow(_format(value) for value in dataclasses.astuple(row))
    return text.getvalue()


def find_row(rows: Sequence[TableRow], fast_weights: str, method: str, protocol: str) -> TableRow | None:
    """The row of this arm, within one (corpus, model)."""
    wanted = (fast_weights, method, protocol)
    return next((row for row in rows if (row.fast_weights, row.method, row.protocol) == wanted), None)


def decomposition_steps(rows: Sequence[TableRow], fast_weights: str) -> list[tuple[str, TableRow]] | None:
    """From the plain backbone to the transductive number: each step's name and the row that it leads to."""
    chain = (
        ("plain backbone", find_row(rows, "none", "plain", "score_first")),
        ("(a) training the adapter", find_row(rows, fast_weights, "skip", "score_first")),
        ("(c) test-time training", find_row(rows, fast_weights, "update_1", "score_first")),
        ("(b) leakage", find_row(rows, fast_weights, "transductive", "transductive")),
    )
    steps = [(name, row) for name, row in chain if row is not None]
    return steps if len(steps) == len(chain) else None
