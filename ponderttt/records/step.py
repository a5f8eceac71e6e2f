"""One step of an arm: what the loop says of one chunk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ponderttt.actions import Action


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
