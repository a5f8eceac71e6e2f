"""The features of an arm and the row of all 64 as traced arithmetic, for policies that are trained in compiled programs.

The same quantities as :mod:`ponderttt.features.loop`, which defines them, in float32 and for one stream; callers batch
with ``vmap``.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ponderttt.actions import Action
from ponderttt.features.feature import EMA_STEP
from ponderttt.features.loop import FROZEN_PLACES, HALF_POSITION, LOOP_PLACES
from ponderttt.features.table import NAMES

Number = Float[Array, ""]

#: ``last_action`` of each action.
_LAST_ACTION = np.array([action.steps / 4 for action in Action], np.float32)


class TracedHistory(NamedTuple):
    """What is remembered of the chunks before; only ``seen`` means anything before the first."""

    #: Chunks before this one.
    seen: Int[Array, ""]
    loss: Number
    loss_frozen: Number
    loss_ema: Number
    gain_ema: Number
    cost_ema: Number
    reconstruction_ema: Number
    #: Index of an :class:`ponderttt.actions.Action`.
    last_action: Int[Array, ""]


def start() -> TracedHistory:
    """At the start of a stream."""
    zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
    return TracedHistory(none, zero, zero, zero, zero, zero, zero, none)


def observe(
    frozen_row: Float[Array, " R"],
    history: TracedHistory,
    *,
    loss: Number,
    loss_frozen: Number,
    reconstruction: Number,
    chunk_index: Int[Array, ""],
    chunks_left: Int[Array, ""],
    budget_left: Number | float,
    budget: Number | float,
) -> Float[Array, " F"]:
    """All features of a chunk that was scored and not learned from yet; arguments as in :func:`.loop.observe`."""
    first = history.seen == 0

    def average(before: Number, value: Number) -> Number:
        return jnp.where(first, value, before + EMA_STEP * (value - before))

    def difference(value: Number, before: Number) -> Number:
        return jnp.where(first, 0.0, value - before)

    count = jnp.asarray(chunk_index + 1 + chunks_left, jnp.float32)
    limited = jnp.isfinite(budget)
    # The division is made either way; without a budget it must not be ∞/∞.
    whole = jnp.where(limited, budget, 1.0) * count
    share = jnp.where(limited, jnp.clip(jnp.where(limited, budget_left, whole) / whole, 0.0, 1.0), 1.0)
    rate = jnp.where(limited, share * count / (chunks_left + 1), 1.0)
    values = {
        "loss_ema": average(history.loss_ema, loss),
        "gain_ema": average(history.gain_ema, loss_frozen - loss),
        "cost_ema": jnp.where(first, 1.0, history.cost_ema),
        "last_action": jnp.where(first, 0.0, jnp.asarray(_LAST_ACTION)[history.last_action]),
        "stream_position": chunk_index / (chunk_index + HALF_POSITION),
        "budget_remaining": share,
        "chunks_left": chunks_left / count,
        "budget_rate": rate,
        "loss_change": difference(loss, history.loss),
        "loss_above_ema": difference(loss, history.loss_ema),
        "frozen_loss_change": difference(loss_frozen, history.loss_frozen),
        "reconstruction_ema": average(history.reconstruction_ema, reconstruction),
        "reconstruction_drift": difference(reconstruction, history.reconstruction_ema),
    }
    own = jnp.stack([jnp.asarray(values[name], jnp.float32) for name in LOOP_PLACES])
    row = jnp.zeros(len(NAMES)).at[FROZEN_PLACES].set(frozen_row)
    return row.at[np.array([*LOOP_PLACES.values()])].set(own)


def remember(
    history: TracedHistory,
    *,
    loss: Number,
    loss_frozen: Number,
    reconstruction: Number,
    action: Int[Array, ""],
    cost: Number,
) -> TracedHistory:
    """The history that the next chunk sees, once the action is taken; arguments as in :func:`.loop.remember`."""

    def average(before: Number, value: Number) -> Number:
        value = jnp.asarray(value, jnp.float32)
        return jnp.where(history.seen == 0, value, before + EMA_STEP * (value - before))

    return TracedHistory(
        seen=history.seen + 1,
        loss=jnp.asarray(loss, jnp.float32),
        loss_frozen=jnp.asarray(loss_frozen, jnp.float32),
        loss_ema=average(history.loss_ema, loss),
        gain_ema=average(history.gain_ema, loss_frozen - loss),
        cost_ema=average(history.cost_ema, cost),
        reconstruction_ema=average(history.reconstruction_ema, reconstruction),
        last_action=jnp.asarray(action, jnp.int32),
    )
