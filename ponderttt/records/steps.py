"""Steps as records, steps of the plain backbone, and steps as text until their job is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ponderttt.actions import Action
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.records.record import Record, write_records
from ponderttt.records.step import Step


def frozen_step(stream: FrozenChunks, t: int) -> Step:
    """Return the step of the plain backbone at chunk t, from the frozen pass: no fast weights, no decision."""
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


def frozen_steps(streams: Sequence[FrozenChunks]) -> list[Step]:
    """Return :func:`frozen_step` of every chunk."""
    return [frozen_step(stream, t) for stream in streams for t in range(len(stream.mask))]


def write_steps(
    folder: Path | str,
    steps: Sequence[Step],
    *,
    model: str,
    fast_weights: str,
    method: str,
    protocol: str,
    seed: int,
    corpus: str,
    language: str,
    nominal_cost: Callable[[Step], float] = lambda step: step.action.nominal_cost,
    facts: Mapping[str, Any],
) -> None:
    """Write the steps of one run as records."""
    records = [
        Record(
            model=model,
            fast_weights=fast_weights,
            method=method,
            protocol=protocol,
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


def steps_to_json(steps: Mapping[str, Sequence[Step]]) -> str:
    """Return steps by arm as text, without token losses, which no record has."""
    # json writes floats with all digits, so reading returns the same numbers.
    return json.dumps(
        {name: [list(step._replace(nll=None)) for step in rows] for name, rows in steps.items()}
    )


def steps_from_json(text: str) -> dict[str, list[Step]]:
    """Read steps by arm; the inverse of :func:`steps_to_json`."""
    position = Step._fields.index("action")

    def step(row: list[Any]) -> Step:
        values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in row]
        return Step._make((*values[:position], Action(values[position]), *values[position + 1 :]))

    return {name: [step(row) for row in rows] for name, rows in json.loads(text).items()}
