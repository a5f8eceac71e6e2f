"""What goes into the loop and what comes out: a stream as the frozen pass sees it, and one step of an arm."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int


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
