"""Records of all runs as one tidy frame: read, verified to be complete, and of known code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.atomic import digest
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST
from ponderttt.names import MethodName
from ponderttt.records.record import RECORDS, read_records

if TYPE_CHECKING:
    import pyarrow

#: Finite in every record.
MEASURES = ["loss", "steps", "cost_nominal", "flops", "seconds"]
#: NaN where an arm has none.
OPTIONAL_MEASURES = ["gate_rank"]


class ArmKey(NamedTuple):
    """Names of an arm, one row of the table."""

    model: str
    fast_weights: str
    method: str
    protocol: str
    corpus: str
    language: str

    def __str__(self) -> str:
        return f"{self.model} {self.fast_weights}/{self.method} ({self.protocol}) on {self.corpus}"


class Budget(NamedTuple):
    """Mean cost per chunk that an arm may spend, in multiples of SKIP's, in nominal cost or in counted FLOPs.

    ``over`` is what the mean is over: each ``stream``, or the ``corpus``.
    """

    mean_cost: float
    unit: str
    over: str = "stream"


class LookAhead(NamedTuple):
    """Signals of each of C chunks, and the gain of each update at the next chunk; NaN if unknown."""

    features: Float[np.ndarray, "C F"]
    #: UPDATE_1, UPDATE_2 and UPDATE_4, nats per token.
    gain: Float[np.ndarray, "C 3"]


@dataclass(frozen=True)
class Run:
    """One arm and seed: all that is not a number per chunk, and the look-ahead of an oracle."""

    key: ArmKey
    seed: int
    #: Whether nothing depends on a seed; then there is a single run.
    deterministic: bool
    budget: Budget | None
    #: Ranks from which UPDATE_1, UPDATE_2 and UPDATE_4 begin, means over chunks; None without a signal rule.
    cuts: Float[np.ndarray, " 3"] | None
    look_ahead: LookAhead | None
    code_digest: str
    #: sha256 of the slow weights; None without fast weights.
    module_digest: str | None
    run_digest: str
    #: ``run_metadata`` of the job that wrote it.
    made_by: dict[str, Any]


#: Columns of the tidy frame.  Rows are ordered by run, stream and chunk; ``action`` is the index of an
#: :class:`~ponderttt.actions.Action`.
COLUMNS = [
    *ArmKey._fields,
    *("seed", "stream_id", "chunk_index", "n_tokens", "n_bytes", "action"),
    *MEASURES,
    *OPTIONAL_MEASURES,
]
#: Columns with a single value in a run.
_CONSTANT = [*ArmKey._fields, "seed"]


class Records(NamedTuple):
    """The runs of a table."""

    #: One row per run and chunk, see :data:`COLUMNS`.
    frame: pd.DataFrame
    #: In the order of the frame.
    runs: list[Run]
    #: Folders without a finished run.
    missing: list[Path]


def load_records(
    run_folders: Sequence[Path | str], expected_code: str | None, *, allow_missing: bool = False
) -> Records:
    """Read every run of a table.

    Args:
        run_folders: every ``results/runs/{corpus}/{model}/{fast_weights}/{method}/seed-{seed}`` of the grid.
        expected_code: stage digest that all records must carry; None accepts any.
        allow_missing: leave out runs that do not exist instead of raising.

    Raises:
        PonderTTTError: a run is missing, or is given twice.
        CorruptFileError: a file is damaged, from another version of the code, or holds impossible values.
    """
    folders = [Path(folder) for folder in run_folders]
    if not folders:
        raise PonderTTTError("no run was given: name the folders of the grid's records")
    missing = [folder for folder in folders if not (folder / MANIFEST).exists()]
    if missing and not allow_missing:
        shown = ", ".join("/".join(folder.parts[-5:]) for folder in missing[:4])
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise PonderTTTError(
            f"{len(missing)} of {len(folders)} runs are missing ({shown}{more}), so there is no table. "
            f"Make the first: {rebuild(missing[0] / RECORDS)}; or all with the table's own command and --keep-going; "
            "or set statistics.allow_missing: true for a table of the runs that exist"
        )
    if len(missing) == len(folders):
        raise PonderTTTError(
            f"none of the {len(folders)} runs exists yet. Make the first: {rebuild(folders[0] / RECORDS)}"
        )
    frames, runs = [], []
    seen = set()
    for folder in folders:
        if folder in missing:
            continue
        frame, run = _read_run(folder, expected_code)
        if (run.key, run.seed) in seen:
            raise PonderTTTError(f"{run.key}: seed {run.seed} was given twice; name every run once")
        seen.add((run.key, run.seed))
        frames.append(frame)
        runs.append(run)
    return Records(pd.concat(frames, ignore_index=True), runs, missing)


def _read_run(folder: Path, expected_code: str | None) -> tuple[pd.DataFrame, Run]:
    remake = f"Rebuild it: {rebuild(folder / RECORDS)}"
    table, manifest = read_records(folder, rebuild(folder / RECORDS), expected_code)
    facts = manifest["facts"]
    if not facts.get("stage_digest"):
        raise CorruptFileError(
            f"{folder / MANIFEST}: has no stage_digest, so nothing says which code made these numbers. {remake}"
        )
    frame = table.select(COLUMNS).to_pandas()
    _check(frame, folder, remake)
    frame["action"] = frame.action.map({action.name: action.value for action in Action}).astype(np.float64)
    frame = frame.sort_values(["stream_id", "chunk_index"], kind="stable")
    key = ArmKey(*(str(frame[name].iloc[0]) for name in ArmKey._fields))
    run = Run(
        key=key,
        seed=int(frame.seed.iloc[0]),
        deterministic=bool(facts.get("deterministic", key.fast_weights == "none")),
        budget=_budget(MethodName.parse(key.method), facts.get("budget")),
        cuts=_mean_cuts(table),
        look_ahead=_look_ahead(table, frame.index.to_numpy()),
        code_digest=facts["stage_digest"],
        module_digest=facts.get("module_digest"),
        run_digest=digest([manifest["files"], facts]),
        made_by=manifest["run"],
    )
    return frame, run


def _check(frame: pd.DataFrame, folder: Path, remake: str) -> None:
    unknown = sorted(set(frame.action) - set(Action.__members__))
    if unknown:
        raise CorruptFileError(f"{folder}: unknown action '{unknown[0]}'. {remake}")
    for name, count in frame[_CONSTANT].nunique().items():
        if count != 1:
            raise CorruptFileError(f"{folder}: {name} has {count} values in one run. {remake}")
    for name, count in (~np.isfinite(frame[MEASURES])).sum().items():
        if count:
            raise CorruptFileError(
                f"{folder}: {name} is not finite in {count} of {len(frame)} records. {remake}"
            )
    if (frame.n_tokens < 1).any():
        raise CorruptFileError(f"{folder}: a record has a chunk without a scored token. {remake}")
    if frame.duplicated(["stream_id", "chunk_index"]).any():
        raise CorruptFileError(f"{folder}: the same chunk of a stream is recorded twice. {remake}")


def _mean_cuts(table: pyarrow.Table) -> Float[np.ndarray, " 3"] | None:
    cuts = np.array([row for row in table["gate_cuts"].to_pylist() if row is not None], np.float64)
    finite = cuts[np.isfinite(cuts).all(axis=-1)] if len(cuts) else cuts
    return finite.mean(axis=0) if len(finite) else None


def _look_ahead(table: pyarrow.Table, order: np.ndarray) -> LookAhead | None:
    if table["look_ahead"].null_count == len(table) or table["features"].null_count == len(table):
        return None
    columns = []
    for name in ("features", "look_ahead"):
        rows = table[name].to_pylist()
        width = next(len(row) for row in rows if row is not None)
        columns.append(np.array([row or [np.nan] * width for row in rows], np.float64)[order])
    return LookAhead(*columns)


def _budget(method: MethodName, own: dict[str, Any] | None) -> Budget | None:
    """Return the budget in the name, or else the study's, which every job writes down; None for fixed schedules."""
    if not method.is_budgeted or own is None:
        return None
    return Budget(float(method.budget or own["mean"]), str(own["unit"]), str(own.get("over", "stream")))
