"""The features that depend on what an arm did with the stream so far, and the row of all 64.

For one stream: call :func:`start` at its beginning, then for each chunk :func:`observe` once it is scored and
:func:`remember` once its action is taken.  The formulas are written once, over either kind of :class:`Numbers`:
:data:`PLAIN` for the loop, :data:`TRACED` for policies that are trained in compiled programs, which batch streams with
``vmap``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ponderttt.actions import Action
from ponderttt.features.feature import EMA_STEP
from ponderttt.features.table import FEATURES, FROZEN, NAMES, frozen_index

#: Chunks after which ``stream_position`` is one half.
HALF_POSITION = 4
#: Places in the row of the frozen features, in their order, and of the loop's, by name.
FROZEN_PLACES = np.array([i for i, feature in enumerate(FEATURES) if feature.source == "frozen"])
LOOP_PLACES = {name: i for i, name in enumerate(NAMES) if name not in FROZEN}
_OWN_PLACES = np.array([*LOOP_PLACES.values()])
_RECONSTRUCTION_ERROR = frozen_index("reconstruction_error")
#: ``last_action`` for each action.
_LAST_ACTION = np.array([action.steps / 4 for action in Action], np.float32)

Number = Float[Array, ""] | float
Whole = Int[Array, ""] | int


@dataclass(frozen=True)
class Numbers:
    """The operations that the formulas need.

    Attributes:
        real: converts to a real number.
        whole: converts to a whole number.
        where: ``where(condition, yes, no)``.
        isfinite: whether a number is finite.
        clip: ``clip(value, low, high)``.
        actions: ``last_action`` for each action.
        row: combines the features of the frozen pass and those of the loop.
    """

    real: Callable[[Any], Any]
    whole: Callable[[Any], Any]
    where: Callable[[Any, Any, Any], Any]
    isfinite: Callable[[Any], Any]
    clip: Callable[[Any, Any, Any], Any]
    actions: Callable[[], Any]
    row: Callable[[Any, list[Any]], Any]


def _plain_row(frozen_row: Any, own: list[float]) -> Float[np.ndarray, " F"]:
    row = np.empty(len(NAMES))
    row[FROZEN_PLACES], row[_OWN_PLACES] = frozen_row, own
    return row


def _traced_row(frozen_row: Any, own: list[Any]) -> Float[Array, " F"]:
    stacked = jnp.stack(own)
    return jnp.zeros(len(NAMES)).at[FROZEN_PLACES].set(frozen_row).at[_OWN_PLACES].set(stacked)


#: Python numbers, in float64.  Numpy's would give the same bits and take ten times as long.
PLAIN = Numbers(
    real=float,
    whole=int,
    where=lambda condition, yes, no: yes if condition else no,
    isfinite=math.isfinite,
    clip=lambda value, low, high: min(high, max(low, value)),
    actions=_LAST_ACTION.tolist,
    row=_plain_row,
)
#: Scalars of a traced program, in float32.
TRACED = Numbers(
    real=lambda value: jnp.asarray(value, jnp.float32),
    whole=lambda value: jnp.asarray(value, jnp.int32),
    where=jnp.where,
    isfinite=jnp.isfinite,
    clip=jnp.clip,
    actions=lambda: jnp.asarray(_LAST_ACTION),
    row=_traced_row,
)


class History(NamedTuple):
    """What is remembered of the chunks before; before the first chunk only ``seen`` has a meaning.

    Attributes:
        seen: number of chunks before.
        loss: committed loss of the previous chunk, nats per token.
        loss_frozen: loss of the frozen backbone on the previous chunk, nats per token.
        loss_ema: moving average of the committed loss.
        gain_ema: moving average of the frozen loss minus the committed loss.
        cost_ema: moving average of the costs of actions.
        reconstruction_ema: moving average of the reconstruction error.
        last_action: index of the :class:`ponderttt.actions.Action` after the previous chunk.
    """

    seen: Whole
    loss: Number
    loss_frozen: Number
    loss_ema: Number
    gain_ema: Number
    cost_ema: Number
    reconstruction_ema: Number
    last_action: Whole


def start(xp: Numbers = PLAIN) -> History:
    """Return the history at the start of a stream."""
    zero, none = xp.real(0.0), xp.whole(0)
    return History(none, zero, zero, zero, zero, zero, zero, none)


def reconstruction_error(own: Any, frozen_rows: Any) -> Any:
    """Return the module's own reconstruction error, or, if it has none, the error from the previous chunk.

    Args:
        own: error of each chunk, [*B]; None for a module that reconstructs nothing.
        frozen_rows: features of the frozen pass, [*B, R].
    """
    return frozen_rows[..., _RECONSTRUCTION_ERROR] if own is None else own


def observe(
    frozen_row: Float[np.ndarray, " R"] | Float[Array, " R"],
    history: History,
    *,
    loss: Number,
    loss_frozen: Number,
    reconstruction: Number,
    chunk_index: Whole,
    chunks_left: Whole,
    budget_left: Number,
    budget: Number,
    xp: Numbers = PLAIN,
) -> Any:
    """Return all features of a chunk that is scored and not learned from yet, in the order of ``table.NAMES``.

    Args:
        frozen_row: features of the frozen pass, see :func:`ponderttt.features.frozen.frozen_features`.
        history: history of the chunks before.
        loss: committed loss, nats per token.
        loss_frozen: loss of the frozen backbone, nats per token.
        reconstruction: error of reconstructing the hidden states before learning from them.
        chunk_index: place of the chunk in its stream, from 0.
        chunks_left: number of chunks after this one.
        budget_left: cost left for this chunk and the later ones, in multiples of SKIP; infinite without a budget.
        budget: mean cost per chunk that the stream may spend, in multiples of SKIP; infinite without a budget.
        xp: kind of the numbers.
    """
    first = history.seen == 0
    average = _averaging(first, xp)

    def difference(value: Number, before: Number) -> Number:
        found: Number = xp.where(first, 0.0, value - before)
        return found

    count = xp.real(chunk_index + 1 + chunks_left)
    limited = xp.isfinite(budget)
    # The division happens either way; without a budget it must not be ∞/∞.
    whole = xp.where(limited, budget, 1.0) * count
    share = xp.where(limited, xp.clip(xp.where(limited, budget_left, whole) / whole, 0.0, 1.0), 1.0)
    rate = xp.where(limited, share * count / (chunks_left + 1), 1.0)
    values = {
        "loss_ema": average(history.loss_ema, loss),
        "gain_ema": average(history.gain_ema, loss_frozen - loss),
        "cost_ema": xp.where(first, 1.0, history.cost_ema),
        "last_action": xp.where(first, 0.0, xp.actions()[history.last_action]),
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
    return xp.row(frozen_row, [xp.real(values[name]) for name in LOOP_PLACES])


def remember(
    history: History,
    *,
    loss: Number,
    loss_frozen: Number,
    reconstruction: Number,
    action: Whole,
    cost: Number,
    xp: Numbers = PLAIN,
) -> History:
    """Return the history for the next chunk; call it once the action is taken.

    Args:
        history: history of the chunks before.
        loss: as in :func:`observe`.
        loss_frozen: as in :func:`observe`.
        reconstruction: as in :func:`observe`.
        action: index of the :class:`ponderttt.actions.Action` that followed.
        cost: cost of that action, in multiples of SKIP.
        xp: kind of the numbers.
    """
    average = _averaging(history.seen == 0, xp)
    return History(
        seen=history.seen + 1,
        loss=xp.real(loss),
        loss_frozen=xp.real(loss_frozen),
        loss_ema=average(history.loss_ema, loss),
        gain_ema=average(history.gain_ema, loss_frozen - loss),
        cost_ema=average(history.cost_ema, cost),
        reconstruction_ema=average(history.reconstruction_ema, reconstruction),
        last_action=xp.whole(action),
    )


def _averaging(first: Any, xp: Numbers) -> Callable[[Number, Number], Number]:
    """Return the update of a moving average, which starts with the value of the ``first`` chunk."""

    def average(before: Number, value: Number) -> Number:
        value = xp.real(value)
        found: Number = xp.where(first, value, before + EMA_STEP * (value - before))
        return found

    return average
