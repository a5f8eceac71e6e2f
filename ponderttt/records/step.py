"""One step of an arm: what happened at one chunk."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError


class Step(NamedTuple):
    """What happened at one chunk of one stream under one arm.

    Attributes:
        stream_id: name of the stream.
        chunk_index: place of the chunk in its stream, from 0.
        n_tokens: scored tokens.
        n_bytes: bytes of the scored tokens.
        loss: committed loss, nats per token.
        loss_frozen: loss of the frozen backbone, nats per token.
        action: the decision after scoring the chunk.
        steps: number of updates that the module reports.
        flops: counted FLOPs.
        seconds: measured seconds.
        reconstruction_loss: reconstruction error before learning; None if it was not measured.
        gate_score: the signal that decided; None if there is none.
        budget_left: cost that the budget still allowed before the action, in multiples of SKIP; None without a budget.
        gate_rank: percentile rank of ``gate_score`` among calibration chunks, 0..1; None if no rank decided.
        gate_cuts: ranks from which UPDATE_1, UPDATE_2 and UPDATE_4 begin; None if no rank decided.
        features: raw features that the policy saw, in the order of :data:`ponderttt.features.table.FEATURES`.
        look_ahead: for ``greedy_oracle``, loss of the next chunk after SKIP minus that after UPDATE_1, UPDATE_2 and
            UPDATE_4.
        nll: negative log-likelihood of each target, 0 where masked, nats; not part of a record.
    """

    stream_id: str
    chunk_index: int
    n_tokens: int
    n_bytes: int
    loss: float
    loss_frozen: float
    action: Action
    steps: int
    flops: float
    seconds: float
    reconstruction_loss: float | None
    gate_score: float | None
    budget_left: float | None
    gate_rank: float | None = None
    gate_cuts: tuple[float, ...] | None = None
    features: tuple[float, ...] | None = None
    look_ahead: tuple[float, ...] | None = None
    nll: Float[np.ndarray, " T"] | None = None


@runtime_checkable
class Scored(Protocol):
    """The losses of a chunk: a :class:`Step` or a record."""

    @property
    def stream_id(self) -> str: ...
    @property
    def chunk_index(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def loss_frozen(self) -> float: ...


def check_finite(scored: Scored, where: str = "") -> None:
    """Check the losses of a chunk.

    Raises:
        PonderTTTError: one is not finite; the message starts with ``where``.
    """
    chunk = f"chunk {scored.chunk_index} of {scored.stream_id}"
    if not math.isfinite(scored.loss_frozen):
        raise PonderTTTError(
            f"{where}the frozen loss of {chunk} is {scored.loss_frozen}; check the model's weights"
        )
    if not math.isfinite(scored.loss):
        raise PonderTTTError(
            f"{where}the loss of {chunk} is {scored.loss}; lower the inner rate of the fast weights"
        )
