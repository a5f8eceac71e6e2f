"""Records as arrays: each arm with its seeds, verified to be complete, of one code version, and comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ponderttt.actions import Action
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.atomic import digest
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST
from ponderttt.names import BUDGETED_METHODS, split_method, stated_budget
from ponderttt.records.record import RECORDS, read_records
from ponderttt.reporting.numbers.methods import rank_of_fast_weights, rank_of_method, rank_of_protocol

if TYPE_CHECKING:
    import pyarrow

MEASURES = ("loss", "steps", "cost_nominal", "flops", "seconds")
#: NaN where an arm has none.
OPTIONAL_MEASURES = ("gate_rank",)


class Budget(NamedTuple):
    """What an arm is held to: a mean cost per chunk in multiples of SKIP's, of nominal cost or of counted FLOPs."""

    mean_cost: float
    unit: str


class ArmKey(NamedTuple):
    """What one row of the table is about."""

    model: str
    fast_weights: str
    method: str
    protocol: str
    corpus: str
    language: str

    def __str__(self) -> str:
        return f"{self.model} {self.fast_weights}/{self.method} ({self.protocol}) on {self.corpus}"


@dataclass(frozen=True)
class Chunks:
    """Which chunks an arm has scored, ordered by stream and position; C chunks of S streams."""

    streams: tuple[str, ...]
    stream: Int[np.ndarray, " C"]
    chunk_index: Int[np.ndarray, " C"]
    n_tokens: Int[np.ndarray, " C"]
    n_bytes: Int[np.ndarray, " C"]

    def same_as(self, other: Chunks) -> bool:
        """Whether both are the very same tokens, chunk by chunk."""
        return self.streams == other.streams and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("stream", "chunk_index", "n_tokens", "n_bytes")
        )

    def per_stream(self, values: Float[np.ndarray, "... C"]) -> Float[np.ndarray, "... S"]:
        """Sums over the chunks of each stream."""
        starts = np.searchsorted(self.stream, np.arange(len(self.streams)))
        return np.add.reduceat(values, starts, axis=-1)


class LookAhead(NamedTuple):
    """What an oracle saw: the signals of each chunk, and the gain at the next chunk of each update; NaN if unknown."""

    features: Float[np.ndarray, "C F"]
    #: Of UPDATE_1, UPDATE_2 and UPDATE_4, nats per token.
    gain: Float[np.ndarray, "C 3"]


@dataclass(frozen=True)
class Run:
    """One arm and seed."""

    key: ArmKey
    seed: int
    #: Nothing in it depends on a seed, so there is one run and no replication to pretend.
    deterministic: bool
    chunks: Chunks
    #: :data:`MEASURES`, :data:`OPTIONAL_MEASURES` and ``action``, the index of an :class:`~ponderttt.actions.Action`.
    measures: dict[str, Float[np.ndarray, " C"]]
    budget: Budget | None
    #: Ranks from which UPDATE_1, UPDATE_2 and UPDATE_4 begin, means over chunks, of a rule that follows ranks.
    cuts: Float[np.ndarray, " 3"] | None
    look_ahead: LookAhead | None
    code_digest: str
    run_digest: str
    #: ``run_metadata`` of the job that made it.
    made_by: dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """One row of the table; every measure is an array [seeds, chunks]."""

    key: ArmKey
    seeds: tuple[int, ...]
    deterministic: bool
    chunks: Chunks
    measures: dict[str, Float[np.ndarray, "N C"]]
    budget: Budget | None
    #: Mean over seeds, see :class:`Run`.
    cuts: Float[np.ndarray, " 3"] | None
    #: By seed, of oracles whose records have it.
    look_aheads: tuple[LookAhead, ...]
    code_digest: str
    run_digest: str
    run_digests: tuple[str, ...]

    def of_seeds(self, seeds: Sequence[int]) -> Float[np.ndarray, "N C"]:
        """The losses of these seeds, or the only run of a deterministic arm once for each of them."""
        if self.deterministic:
            return np.repeat(self.measures["loss"], len(seeds), axis=0)
        return self.measures["loss"][[self.seeds.index(seed) for seed in seeds]]


def mean_loss(arm: Arm) -> float:
    """Nats per token, seeds averaged."""
    return float(arm.measures["loss"].mean(axis=0) @ arm.chunks.n_tokens / arm.chunks.n_tokens.sum())


def missing_runs(folders: Sequence[Path]) -> list[Path]:
    """The folders that no finished run has written."""
    return [folder for folder in folders if not (folder / MANIFEST).exists()]


def load_arms(
    folders: Sequence[Path], expected_code: str | None, *, allow_missing: bool = False
) -> tuple[list[Arm], list[Run], list[Path]]:
    """Read every run that the table is made of, and put the seeds of each arm together.

    Args:
        folders: every ``results/runs/{corpus}/{model}/{fast_weights}/{method}/seed-{seed}`` that the grid demands.
        expected_code: the stage digest that all records must carry; ``None`` accepts any, but one per arm.
        allow_missing: leave out runs that do not exist yet, instead of refusing.

    Returns:
        The arms in reading order, their runs, and the folders that were missing.

    Raises:
        PonderTTTError: a run is missing, given twice, or scored other chunks than its fellow seeds.
        CorruptFileError: a file is damaged, from another code version, or holds what no run can have made.
    """
    folders = [Path(folder) for folder in folders]
    if not folders:
        raise PonderTTTError("no run was given: name the folders of the grid's records")
    missing = missing_runs(folders)
    if missing and not allow_missing:
        shown = ", ".join(_short(folder) for folder in missing[:4])
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise PonderTTTError(
            f"the table is refused: {len(missing)} of {len(folders)} runs are missing ({shown}{more}). "
            f"Make the first: {rebuild(missing[0] / RECORDS)}; or set statistics.allow_missing: true "
            "for a table of the runs that exist"
        )
    present = [folder for folder in folders if folder not in set(missing)]
    if not present:
        raise PonderTTTError(
            f"none of the {len(folders)} runs exists yet. Make the first: {rebuild(folders[0] / RECORDS)}"
        )
    runs = [read_run(folder, expected_code) for folder in present]
    groups: dict[ArmKey, dict[int, Run]] = {}
    for run in runs:
        seeds = groups.setdefault(run.key, {})
        if run.seed in seeds:
            raise PonderTTTError(f"{run.key}: seed {run.seed} was given twice; name every run once")
        seeds[run.seed] = run
    arms = [_arm(key, [seeds[seed] for seed in sorted(seeds)]) for key, seeds in groups.items()]
    if not allow_missing:
        _check_seeds(arms)
    return sorted(arms, key=lambda arm: reading_order(arm.key)), runs, missing


def read_run(folder: Path, expected_code: str | None = None) -> Run:
    """Read and verify one run; see :func:`load_arms`."""
    remake = f"Rebuild it: {rebuild(folder / RECORDS)}"
    table, manifest = read_records(folder, rebuild(folder / RECORDS), expected_code)
    code = manifest["facts"].get("stage_digest")
    if not code:
        raise CorruptFileError(
            f"{folder / MANIFEST}: has no stage_digest, so nothing says which code made these numbers. "
            f"{remake}"
        )
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in _COLUMNS}
    unknown = sorted(set(columns["action"]) - set(Action.__members__))
    if unknown:
        raise CorruptFileError(f"{folder}: unknown action '{unknown[0]}'. {remake}")
    columns["action"] = np.array([Action[name] for name in columns["action"]], np.float64)
    for name in (*ArmKey._fields, "seed"):
        values = set(columns[name])
        if len(values) != 1:
            raise CorruptFileError(f"{folder}: {name} has {len(values)} values in one run. {remake}")
    for name in MEASURES:
        if not np.isfinite(columns[name].astype(np.float64)).all():
            raise CorruptFileError(
                f"{folder}: {name} is not finite in {np.sum(~np.isfinite(columns[name]))} of {len(table)} records. "
                f"{remake}"
            )
    if (columns["n_tokens"] < 1).any():
        raise CorruptFileError(f"{folder}: a chunk without a scored token is in the records. {remake}")
    streams, stream = np.unique(columns["stream_id"].astype(str), return_inverse=True)
    order = np.lexsort((columns["chunk_index"], stream))
    position = np.stack([stream, columns["chunk_index"]])[:, order]
    if (position[:, 1:] == position[:, :-1]).all(axis=0).any():
        raise CorruptFileError(f"{folder}: the same chunk of a stream is recorded twice. {remake}")
    chunks = Chunks(
        streams=tuple(str(name) for name in streams),
        stream=position[0],
        chunk_index=position[1],
        n_tokens=columns["n_tokens"][order],
        n_bytes=columns["n_bytes"][order],
    )
    key = ArmKey(*(str(columns[name][0]) for name in ArmKey._fields))
    return Run(
        key=key,
        seed=int(columns["seed"][0]),
        deterministic=bool(manifest["facts"].get("deterministic", key.fast_weights == "none")),
        chunks=chunks,
        measures={
            name: columns[name][order].astype(np.float64)
            for name in (*MEASURES, *OPTIONAL_MEASURES, "action")
        },
        budget=_budget(key.method, manifest["facts"]),
        cuts=_mean_cuts(table),
        look_ahead=_look_ahead(table, order),
        code_digest=code,
        run_digest=digest([manifest["files"], manifest["facts"]]),
        made_by=manifest["run"],
    )


_COLUMNS = (
    *ArmKey._fields,
    *("seed", "stream_id", "chunk_index", "n_tokens", "n_bytes", "action"),
    *MEASURES,
    *OPTIONAL_MEASURES,
)


def _mean_cuts(table: pyarrow.Table) -> Float[np.ndarray, " 3"] | None:
    cuts = np.array([row for row in table["gate_cuts"].to_pylist() if row is not None], np.float64)
    finite = cuts[np.isfinite(cuts).all(axis=-1)] if len(cuts) else cuts
    return finite.mean(axis=0) if len(finite) else None


def _look_ahead(table: pyarrow.Table, order: Int[np.ndarray, " C"]) -> LookAhead | None:
    if table["look_ahead"].null_count == len(table) or table["features"].null_count == len(table):
        return None
    columns = []
    for name in ("features", "look_ahead"):
        rows = table[name].to_pylist()
        width = next(len(row) for row in rows if row is not None)
        columns.append(np.array([row or [np.nan] * width for row in rows], np.float64)[order])
    return LookAhead(*columns)


def _budget(method: str, facts: dict[str, Any]) -> Budget | None:
    """From the name, or else the study's own, which every job writes down; fixed schedules are held to none."""
    base, _ = split_method(method)
    own = facts.get("budget")
    if base not in BUDGETED_METHODS or own is None:
        return None
    return Budget(float(stated_budget(method) or own["mean"]), str(own["unit"]))


def reading_order(key: ArmKey) -> tuple[Any, ...]:
    """Sort key: corpora and models apart, no fast weights first, controls beside their reference, leaks last."""
    return (
        key.corpus,
        key.model,
        rank_of_fast_weights(key.fast_weights),
        rank_of_protocol(key.protocol),
        rank_of_method(key.method),
    )


def _arm(key: ArmKey, runs: Sequence[Run]) -> Arm:
    first = runs[0]
    if first.deterministic and len(runs) > 1:
        raise PonderTTTError(f"{key}: is deterministic, yet {len(runs)} seeds were given; name one run of it")
    for run in runs[1:]:
        if not run.chunks.same_as(first.chunks):
            raise PonderTTTError(
                f"{key}: seeds {first.seed} and {run.seed} scored different chunks; rebuild both from one corpus"
            )
        if run.code_digest != first.code_digest:
            raise CorruptFileError(
                f"{key}: seeds {first.seed} and {run.seed} come from different versions of the code "
                f"({first.code_digest[:12]}, {run.code_digest[:12]}); rebuild them with the workflow"
            )
    cuts = [run.cuts for run in runs if run.cuts is not None]
    return Arm(
        key=key,
        seeds=tuple(run.seed for run in runs),
        deterministic=first.deterministic,
        chunks=first.chunks,
        measures={name: np.stack([run.measures[name] for run in runs]) for name in first.measures},
        budget=first.budget,
        cuts=np.mean(cuts, axis=0) if cuts else None,
        look_aheads=tuple(run.look_ahead for run in runs if run.look_ahead),
        code_digest=first.code_digest,
        run_digest=digest([run.run_digest for run in runs]),
        run_digests=tuple(run.run_digest for run in runs),
    )


def _check_seeds(arms: Sequence[Arm]) -> None:
    """Every arm of a corpus that has seeds has the same ones: a hole in a list of folders is a missing seed all the same.

    Control corpora may have fewer seeds than others.
    """
    for corpus in dict.fromkeys(arm.key.corpus for arm in arms):
        seeded = [arm for arm in arms if arm.key.corpus == corpus and not arm.deterministic]
        wanted = set().union(*(arm.seeds for arm in seeded))
        for arm in seeded:
            lacking = sorted(wanted - set(arm.seeds))
            if lacking:
                raise PonderTTTError(
                    f"the table is refused: {arm.key} lacks seed {', '.join(map(str, lacking))}, which other arms have. "
                    "Add the run, or set statistics.allow_missing: true for a table of the runs that exist"
                )


def _short(folder: Path) -> str:
    return "/".join(folder.parts[-5:])
