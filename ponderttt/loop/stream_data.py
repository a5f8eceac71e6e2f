"""What goes into the loop and what comes out: a stream as the frozen pass sees it, and one step of an arm."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from ponderttt.actions import Action


class StreamLike(Protocol):
    """One stream as the frozen pass sees it: N chunks of T tokens.  Fields are indexed by chunk, in order."""

    @property
    def stream_id(self) -> str:
        """Name of the stream."""

    @property
    def hidden(self) -> Any:
        """Final hidden states, [N, T, D]."""

    @property
    def targets(self) -> Any:
        """Token after each position, [N, T]."""

    @property
    def mask(self) -> Any:
        """True where the target is a real token, [N, T]."""

    @property
    def entropy(self) -> Any:
        """Entropy of each frozen prediction in nats, [N, T]."""

    @property
    def nll_frozen(self) -> Any:
        """Frozen negative log-likelihood of each target in nats, 0 where masked, [N, T]."""

    @property
    def split(self) -> Any:
        """Residual stream at the split layer, [N, S, D], or ``None`` where no arm needs it."""

    @property
    def features(self) -> Any:
        """What the frozen pass says of each chunk: the features of ``features.table.FROZEN``, [N, F]."""

    @property
    def loss_frozen(self) -> Any:
        """Mean frozen loss of each chunk, nats per token, [N]."""

    @property
    def n_bytes(self) -> Any:
        """Bytes of the scored tokens, [N]."""

    @property
    def flops(self) -> Any:
        """FLOPs of the frozen hidden states, [N]."""

    @property
    def seconds(self) -> Any:
        """Seconds of the frozen hidden states, [N]."""

    @property
    def suffix_flops(self) -> Any:
        """The part of ``flops`` after the split layer, [N]."""

    @property
    def suffix_seconds(self) -> Any:
        """The part of ``seconds`` after the split layer, [N]."""

    @property
    def projection_flops(self) -> Any:
        """FLOPs of the frozen vocabulary projection and loss, [N]."""

    @property
    def projection_seconds(self) -> Any:
        """Seconds of the frozen vocabulary projection and loss, [N]."""


class StreamChunks(NamedTuple):
    """A :class:`StreamLike` in memory."""

    stream_id: str
    hidden: Float[np.ndarray, "N T D"]
    targets: Int[np.ndarray, "N T"]
    mask: Bool[np.ndarray, "N T"]
    entropy: Float[np.ndarray, "N T"]
    nll_frozen: Float[np.ndarray, "N T"]
    loss_frozen: Float[np.ndarray, " N"]
    n_bytes: Int[np.ndarray, " N"]
    flops: Float[np.ndarray, " N"]
    seconds: Float[np.ndarray, " N"]
    suffix_flops: Float[np.ndarray, " N"]
    suffix_seconds: Float[np.ndarray, " N"]
    projection_flops: Float[np.ndarray, " N"]
    projection_seconds: Float[np.ndarray, " N"]
    features: Float[np.ndarray, "N F"]
    split: Float[np.ndarray, "N S D"] | None = None


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
