"""The arms of the table: which policy and protocol a method stands for, and the jobs that run them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Array, Float

from ponderttt.actions import Action
from ponderttt.fast_weights.base import FastWeights
from ponderttt.policies.base import Policy
from ponderttt.policies.rules import Fixed, Random
from ponderttt.provenance import atomic_path
from ponderttt.records import Record, write_records
from ponderttt.stream import Arm, ModulePrograms, Protocol, run_streams
from ponderttt.stream_data import Step, StreamLike
from ponderttt.training.checkpoints import Checkpoints

#: Fixed actions under score_first, by method.
_FIXED = {action.name.lower(): action for action in Action}


def protocol_of(method: str) -> Protocol:
    """The protocol of a method; ``score_first`` unless the method is named for another."""
    if method == "in_chunk":
        return "in_chunk"
    if method == "transductive":
        return "transductive"
    return "score_first"


def policy_of(method: str, budget: float) -> Policy:
    """The policy of a method that needs no training; ``budget`` is a mean nominal cost per chunk."""
    if method in _FIXED:
        return Fixed(_FIXED[method])
    if method == "random":
        return Random(budget)
    if method in ("in_chunk", "transductive"):
        return Fixed(Action.UPDATE_1)
    raise ValueError(f"unknown method {method!r}")


def run_arms(
    module: FastWeights,
    streams: Sequence[StreamLike],
    unembedding: Float[Array, "V D"],
    methods: Sequence[str],
    *,
    budget: float,
    seed: int,
    streams_per_group: int = 1,
    checkpoints: Checkpoints | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[Step]]:
    """Run methods side by side over every stream with one trained module.

    Finished groups are kept beside the checkpoints, so that an interrupted job does not score them again.
    """
    programs = ModulePrograms(module)
    arms = [Arm(m, programs, policy_of(m, budget), protocol_of(m), seed) for m in methods]
    steps: dict[str, list[Step]] = {method: [] for method in methods}
    for begin in range(0, len(streams), streams_per_group):
        group = streams[begin : begin + streams_per_group]
        kept = checkpoints.folder / f"group-{begin:05d}.json" if checkpoints else None
        if kept and kept.exists():
            finished = _steps_from_json(kept.read_text())
        else:
            finished = run_streams(arms, group, unembedding)
            if kept:
                with atomic_path(kept) as temporary:
                    temporary.write_text(_steps_to_json(finished))
        for method in methods:
            steps[method].extend(finished[method])
        progress(begin + len(group), len(streams))
    return steps


def frozen_step(stream: StreamLike, t: int) -> Step:
    """What the plain backbone did with chunk t, taken from the frozen pass: no fast weights, no decision."""
    return Step(
        stream_id=stream.stream_id,
        chunk_index=t,
        n_tokens=int(stream.mask[t].sum()),
        n_bytes=int(stream.n_bytes[t]),
        loss=float(stream.loss_frozen[t]),
        loss_frozen=float(stream.loss_frozen[t]),
        action=Action.SKIP,
        steps=0,
        flops=float(stream.flops[t] + stream.projection_flops[t]),
        seconds=float(stream.seconds[t] + stream.projection_seconds[t]),
        reconstruction_loss=None,
        gate_score=None,
        budget_left=None,
    )


def frozen_steps(streams: Sequence[StreamLike]) -> list[Step]:
    """:func:`frozen_step` of every chunk."""
    return [frozen_step(stream, t) for stream in streams for t in range(len(stream.mask))]


def write_steps(
    folder: Path | str,
    steps: Sequence[Step],
    *,
    model: str,
    fast_weights: str,
    method: str,
    seed: int,
    corpus: str,
    language: str,
    nominal_cost: Callable[[Step], float] = lambda step: step.action.nominal_cost,
    facts: Mapping[str, Any],
) -> None:
    """Write the steps of one arm and seed as records."""
    records = [
        Record(
            model=model,
            fast_weights=fast_weights,
            method=method,
            protocol=protocol_of(method),
            seed=seed,
            corpus=corpus,
            language=language,
            action=step.action.name,
            cost_nominal=nominal_cost(step),
            **{name: getattr(step, name) for name in Step._fields if name not in ("action", "nll")},
        )
        for step in steps
    ]
    write_records(folder, records, facts)


def _steps_to_json(steps: Mapping[str, Sequence[Step]]) -> str:
    # json writes floats with all their digits, so reading gives back the same numbers; no record holds token losses.
    return json.dumps(
        {name: [list(step._replace(nll=None)) for step in rows] for name, rows in steps.items()}
    )


def _steps_from_json(text: str) -> dict[str, list[Step]]:
    position = Step._fields.index("action")
    return {
        name: [Step._make((*row[:position], Action(row[position]), *row[position + 1 :])) for row in rows]
        for name, rows in json.loads(text).items()
    }
