"""What a compiled program sees of a stream is what the loop shows, to the rounding of float32."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.actions import Action
from ponderttt.features.history import TRACED, History, observe, remember, start
from ponderttt.features.table import FROZEN, index

CHUNKS = 9


@jax.jit
def rows_of(
    frozen_rows: Any, scored: Any, actions: Any, costs: Any, count: Any, left: Any, budget: Any
) -> Any:
    """The rows of a whole stream in one program."""

    def chunk(history: History, inputs: Any) -> tuple[History, Any]:
        t, frozen_row, seen, action, cost, budget_left = inputs
        row = observe(
            frozen_row,
            history,
            **seen,
            chunk_index=t,
            chunks_left=count - t - 1,
            budget_left=budget_left,
            budget=budget,
            xp=TRACED,
        )
        return remember(history, **seen, action=action, cost=cost, xp=TRACED), row

    inputs = (jnp.arange(CHUNKS), frozen_rows, scored, actions, costs, left)
    return jax.lax.scan(chunk, start(TRACED), inputs)[1]


def a_stream(seed: int) -> dict[str, Any]:
    """Scores, actions and costs of a stream."""
    draw = np.random.default_rng(seed)
    return {
        "frozen_rows": draw.normal(size=(CHUNKS, len(FROZEN))).astype(np.float32),
        "scored": {
            "loss": draw.uniform(0, 4, CHUNKS).astype(np.float32),
            "loss_frozen": draw.uniform(0, 4, CHUNKS).astype(np.float32),
            "reconstruction": draw.uniform(0, 40, CHUNKS).astype(np.float32),
        },
        "actions": draw.integers(len(Action), size=CHUNKS),
        "costs": draw.uniform(1, 12, CHUNKS).astype(np.float32),
    }


@pytest.mark.parametrize("budget", [3.0, 1.2, math.inf])
@pytest.mark.parametrize("seed", range(8))
def test_a_random_stream_has_the_rows_of_the_loop(seed, budget):
    stream = a_stream(seed)
    # Streams end where they like; what is spent may exceed the budget, where the share is cut at 0.
    count = CHUNKS + seed % 3
    left = budget * count - np.concatenate([[0.0], np.cumsum(stream["costs"])[:-1]])
    history, expected = start(), []
    for t in range(CHUNKS):
        seen = {name: float(values[t]) for name, values in stream["scored"].items()}
        expected.append(
            observe(
                stream["frozen_rows"][t],
                history,
                **seen,
                chunk_index=t,
                chunks_left=count - t - 1,
                budget_left=float(left[t]),
                budget=budget,
            )
        )
        history = remember(history, **seen, action=int(stream["actions"][t]), cost=float(stream["costs"][t]))
    rows = rows_of(**stream, count=count, left=left.astype(np.float32), budget=budget)
    np.testing.assert_allclose(rows, np.stack(expected), rtol=1e-5, atol=1e-5)
    # The comparison can fail: nearly all of the row changes from chunk to chunk.
    constant = {"budget_remaining", "budget_rate"} if budget == math.inf else set()
    varies = np.ptp(rows, axis=0) > 0
    assert {index(name) for name in constant} == set(np.flatnonzero(~varies))


def test_the_first_chunk_of_a_stream_has_no_past(seed=3):
    """A history that says nothing is not one that says 0."""
    stream = a_stream(seed)
    row = rows_of(**stream, count=CHUNKS, left=np.full(CHUNKS, 3.0 * CHUNKS, np.float32), budget=3.0)[0]
    loss, frozen = stream["scored"]["loss"][0], stream["scored"]["loss_frozen"][0]
    expected = {
        "loss_ema": loss,
        "gain_ema": frozen - loss,
        "cost_ema": 1.0,
        "last_action": 0.0,
        "loss_change": 0.0,
        "frozen_loss_change": 0.0,
        "budget_remaining": 1.0,
        "budget_rate": 1.0,
    }
    for name, value in expected.items():
        assert float(row[index(name)]) == pytest.approx(float(value), abs=1e-6), name


def test_no_gradient_is_spoiled_where_there_is_no_budget():
    """0·∞ hides in divisions that are thrown away."""
    stream = a_stream(0)

    def total(scored: Any) -> Any:
        rest = {name: value for name, value in stream.items() if name != "scored"}
        return jnp.sum(
            rows_of(**rest, scored=scored, count=CHUNKS, left=np.full(CHUNKS, np.inf), budget=math.inf)
        )

    slopes = jax.grad(total)(stream["scored"])
    assert all(np.isfinite(slope).all() for slope in slopes.values())
