"""The features that depend on what an arm did with the stream so far, and the row of all 64.

For one stream, in plain numbers: :func:`start` at its beginning, then for each chunk :func:`observe` once it is
scored and :func:`remember` once its action is taken.
"""

from __future__ import annotations

from math import isfinite
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.features.feature import EMA_STEP
from ponderttt.features.table import FEATURES, FROZEN, NAMES

#: Chunks after which half of ``stream_position`` is reached.
HALF_POSITION = 4
#: Where the two sources stand in the row: frozen features in their order, those of the loop by name.
FROZEN_PLACES = np.array([i for i, feature in enumerate(FEATURES) if feature.source == "frozen"])
LOOP_PLACES = {name: i for i, name in enumerate(NAMES) if name not in FROZEN}


class History(NamedTuple):
    """What is remembered of the chunks before; ``None`` before the first."""

    loss: float | None = None
    loss_frozen: float | None = None
    loss_ema: float | None = None
    gain_ema: float | None = None
    cost_ema: float | None = None
    reconstruction_ema: float | None = None
    last_action: Action | None = None


def start() -> History:
    """At the start of a stream."""
    return History()


def observe(
    frozen_row: Float[np.ndarray, " R"],
    history: History,
    *,
    loss: float,
    loss_frozen: float,
    reconstruction: float,
    chunk_index: int,
    chunks_left: int,
    budget_left: float,
    budget: float,
) -> Float[np.ndarray, " F"]:
    """All features of a chunk that was scored and not learned from yet, in the order of ``table.NAMES``.

    Args:
        frozen_row: of :func:`ponderttt.features.frozen.frozen_features`.
        history: of the chunks before.
        loss: committed loss, nats per token.
        loss_frozen: loss of the frozen backbone, nats per token.
        reconstruction: how badly the hidden states are reconstructed before learning from them.
        chunk_index: place of the chunk in its stream, from 0.
        chunks_left: chunks of the stream after this one.
        budget_left: what may still be spent, this chunk's action included, in multiples of SKIP; infinite without a budget.
        budget: mean per chunk that the stream may spend, in multiples of SKIP; infinite without a budget.
    """
    count = chunk_index + 1 + chunks_left
    # Without a budget every chunk may cost what it likes: nothing is ever scarce.
    share = rate = 1.0
    if isfinite(budget):
        share = min(1.0, max(0.0, budget_left / (budget * count)))
        rate = share * count / (chunks_left + 1)
    values = {
        "loss_ema": _average(history.loss_ema, loss),
        "gain_ema": _average(history.gain_ema, loss_frozen - loss),
        "cost_ema": 1.0 if history.cost_ema is None else history.cost_ema,
        "last_action": 0.0 if history.last_action is None else Action(history.last_action).steps / 4,
        "stream_position": chunk_index / (chunk_index + HALF_POSITION),
        "budget_remaining": share,
        "chunks_left": chunks_left / count,
        "budget_rate": rate,
        "loss_change": _difference(loss, history.loss),
        "loss_above_ema": _difference(loss, history.loss_ema),
        "frozen_loss_change": _difference(loss_frozen, history.loss_frozen),
        "reconstruction_ema": _average(history.reconstruction_ema, reconstruction),
        "reconstruction_drift": _difference(reconstruction, history.reconstruction_ema),
    }
    row = np.empty(len(NAMES))
    row[FROZEN_PLACES] = frozen_row
    for name, place in LOOP_PLACES.items():
        row[place] = values[name]
    return row


def remember(
    history: History, *, loss: float, loss_frozen: float, reconstruction: float, action: int, cost: float
) -> History:
    """The history that the next chunk sees; called once the action is taken.

    Args:
        history: of the chunks before.
        loss: as in :func:`observe`.
        loss_frozen: as in :func:`observe`.
        reconstruction: as in :func:`observe`.
        action: index of the :class:`ponderttt.actions.Action` that followed.
        cost: of that action, in multiples of SKIP.
    """
    return History(
        loss=loss,
        loss_frozen=loss_frozen,
        loss_ema=_average(history.loss_ema, loss),
        gain_ema=_average(history.gain_ema, loss_frozen - loss),
        cost_ema=_average(history.cost_ema, cost),
        reconstruction_ema=_average(history.reconstruction_ema, reconstruction),
        last_action=Action(action),
    )


def _average(before: float | None, value: float) -> float:
    return value if before is None else before + EMA_STEP * (value - before)


def _difference(value: float, before: float | None) -> float:
    return 0.0 if before is None else value - before
