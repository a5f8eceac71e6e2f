"""One step of an arm: what the loop says of one chunk."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError


class Step(NamedTuple):
    """What the loop says of one chunk of one stream under one arm; the fields of a record that it decides."""

    stream_id: str
    chunk_index: int
    n_tokens: int
    n_bytes: int
    loss: float
    loss_frozen: float
    action: Action
    #: Updates that the module reports to have made.
    steps: int
    flops: float
    seconds: float
    reconstruction_loss: float | None
    gate_score: float | None
    budget_left: float | None
    #: See :class:`ponderttt.policies.base.Decision`.
    gate_rank: float | None = None
    gate_cuts: tuple[float, ...] | None = None
    #: Raw signals that the policy saw, by :data:`ponderttt.features.table.FEATURES`.
    features: tuple[float, ...] | None = None
    #: Of ``greedy_oracle``: loss of the next chunk after SKIP minus after UPDATE_1, UPDATE_2 and UPDATE_4.
    look_ahead: tuple[float, ...] | None = None
    #: Negative log-likelihood of each target in nats, 0 where masked; not part of a record.
    nll: Float[np.ndarray, " T"] | None = None


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
