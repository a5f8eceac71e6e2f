"""Records grouped into arms: arrays of seeds and chunks, of one code version, and comparable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.atomic import digest
from ponderttt.names import MethodName
from ponderttt.reporting.numbers.methods import rank_of_fast_weights, rank_of_method, rank_of_protocol
from ponderttt.reporting.numbers.run_records import (
    MEASURES,
    OPTIONAL_MEASURES,
    ArmKey,
    Budget,
    LookAhead,
    Records,
    Run,
    load_records,
)

#: Columns that are the same in every seed of an arm.
_CHUNK = ["stream_id", "chunk_index", "n_tokens", "n_bytes"]


@dataclass(frozen=True)
class Chunks:
    """The C chunks of S streams that an arm scored, ordered by stream and position."""

    streams: tuple[str, ...]
    stream: Int[np.ndarray, " C"]
    chunk_index: Int[np.ndarray, " C"]
    n_tokens: Int[np.ndarray, " C"]
    n_bytes: Int[np.ndarray, " C"]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Chunks:
        """Return the chunks of one run's rows."""
        codes, streams = pd.factorize(frame.stream_id)
        return cls(tuple(streams), codes, *(frame[name].to_numpy() for name in _CHUNK[1:]))

    def same_as(self, other: Chunks) -> bool:
        """Return whether both are the same tokens, chunk by chunk."""
        return self.streams == other.streams and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("stream", *_CHUNK[1:])
        )

    def per_stream(self, values: Float[np.ndarray, "... C"]) -> Float[np.ndarray, "... S"]:
        """Return the sums over the chunks of each stream."""
        starts = np.searchsorted(self.stream, np.arange(len(self.streams)))
        return np.add.reduceat(values, starts, axis=-1)


@dataclass(frozen=True)
class Arm:
    """One row of the table: N seeds on C chunks."""

    key: ArmKey
    seeds: tuple[int, ...]
    deterministic: bool
    chunks: Chunks
    #: The measures of the records and ``action``, the index of an :class:`~ponderttt.actions.Action`.
    measures: dict[str, Float[np.ndarray, "N C"]]
    budget: Budget | None
    #: Ranks from which the updates begin, mean over seeds, see :class:`~ponderttt.reporting.numbers.run_records.Run`.
    cuts: Float[np.ndarray, " 3"] | None
    #: One for each seed of an oracle whose records have it.
    look_aheads: tuple[LookAhead, ...]
    code_digest: str
    #: One for each seed, None without fast weights.
    module_digests: tuple[str | None, ...]
    run_digests: tuple[str, ...]

    @cached_property
    def name(self) -> MethodName:
        """The parsed name of the method."""
        return MethodName.parse(self.key.method)

    @property
    def run_digest(self) -> str:
        """Digest of all its records."""
        return digest(list(self.run_digests))

    @cached_property
    def tokens(self) -> Float[np.ndarray, " S"]:
        """Scored tokens of each stream."""
        return self.chunks.per_stream(self.chunks.n_tokens.astype(np.float64))

    @cached_property
    def nats(self) -> Float[np.ndarray, "N S"]:
        """Loss of each seed, summed over the tokens of each stream."""
        return self.chunks.per_stream(self.measures["loss"] * self.chunks.n_tokens)

    @property
    def mean_cost(self) -> float:
        """Mean nominal cost per chunk."""
        return self.mean("cost_nominal")

    def mean(self, measure: str) -> float:
        """Return the mean of a measure over seeds and chunks."""
        return float(self.measures[measure].mean())

    @cached_property
    def mean_loss(self) -> float:
        """Nats per token, seeds averaged."""
        tokens = self.chunks.n_tokens
        return float(self.measures["loss"].mean(axis=0) @ tokens / tokens.sum())

    def losses_of(self, seeds: Sequence[int]) -> Float[np.ndarray, "N C"]:
        """Return the losses of these seeds; a deterministic arm has the same ones for each."""
        if self.deterministic:
            return np.repeat(self.measures["loss"], len(seeds), axis=0)
        return self.measures["loss"][[self.seeds.index(seed) for seed in seeds]]


def load_arms(
    folders: Sequence[Path | str], expected_code: str | None, *, allow_missing: bool = False
) -> tuple[list[Arm], Records]:
    """Read every run of a table, see :func:`~ponderttt.reporting.numbers.run_records.load_records`, and group the runs.

    Returns:
        The arms in reading order, and the records that they are made of.

    Raises:
        PonderTTTError: a run is missing or given twice, an arm lacks a seed that others have, or its seeds scored different
            chunks.
        CorruptFileError: a file is damaged, or seeds of an arm come from different versions of the code.
    """
    records = load_records(folders, expected_code, allow_missing=allow_missing)
    arms = _group(records)
    if not allow_missing:
        _check_seeds(arms)
    return arms, records


def _group(records: Records) -> list[Arm]:
    runs = {(run.key, run.seed): run for run in records.runs}
    arms = []
    for names, mine in records.frame.groupby(list(ArmKey._fields), sort=False):
        key = ArmKey(*names)
        by_seed = {int(seed): rows for seed, rows in mine.groupby("seed")}
        arms.append(_arm(key, [runs[key, seed] for seed in by_seed], list(by_seed.values())))
    return sorted(arms, key=lambda arm: reading_order(arm.key))


def reading_order(key: ArmKey) -> tuple[Any, ...]:
    """Sort key: by corpus and model; no fast weights first, protocols that are no result last."""
    return (
        key.corpus,
        key.model,
        rank_of_fast_weights(key.fast_weights),
        rank_of_protocol(key.protocol),
        rank_of_method(MethodName.parse(key.method)),
    )


def _arm(key: ArmKey, runs: Sequence[Run], frames: Sequence[pd.DataFrame]) -> Arm:
    first, chunks = runs[0], Chunks.of(frames[0])
    if first.deterministic and len(runs) > 1:
        raise PonderTTTError(f"{key}: is deterministic, but {len(runs)} seeds were given; name one run")
    for run, frame in zip(runs[1:], frames[1:], strict=True):
        if not Chunks.of(frame).same_as(chunks):
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
        chunks=chunks,
        measures={
            name: np.stack([frame[name].to_numpy(np.float64) for frame in frames])
            for name in (*MEASURES, *OPTIONAL_MEASURES, "action")
        },
        budget=first.budget,
        cuts=np.mean(cuts, axis=0) if cuts else None,
        look_aheads=tuple(run.look_ahead for run in runs if run.look_ahead),
        code_digest=first.code_digest,
        module_digests=tuple(run.module_digest for run in runs),
        run_digests=tuple(run.run_digest for run in runs),
    )


def _check_seeds(arms: Sequence[Arm]) -> None:
    """Raise PonderTTTError if an arm lacks a seed that others of its corpus have.

    A seed that is not in the list of folders is missing too.  Control corpora may have fewer seeds than others.
    """
    for corpus in dict.fromkeys(arm.key.corpus for arm in arms):
        seeded = [arm for arm in arms if arm.key.corpus == corpus and not arm.deterministic]
        wanted = set().union(*(arm.seeds for arm in seeded))
        for arm in seeded:
            lacking = sorted(wanted - set(arm.seeds))
            if lacking:
                raise PonderTTTError(
                    f"{arm.key} lacks seed {', '.join(map(str, lacking))}, which other arms have, so there is no table. "
                    "Add the run, or set statistics.allow_missing: true for a table of the runs that exist"
                )
