"""What the frozen pass knows of a chunk: the one declaration of its fields."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class FrozenChunks(NamedTuple):
    """Chunks of T tokens as the frozen backbone sees them: one chunk, or the N chunks of a stream with a leading axis.

    The fields of a stream are indexed by chunk, in order.  They may be computed when they are indexed, see
    :func:`ponderttt.frozen.live.live_stream`.

    Attributes:
        stream_id: name of the stream.
        hidden: final normed hidden states.
        targets: token after each position.
        mask: True where the target is a real token.
        entropy: entropy of each prediction, 0 where masked; nats.
        nll_frozen: negative log-likelihood of each target, 0 where masked; nats.
        loss_frozen: mean loss of the chunk, nats per token.
        n_bytes: bytes of the scored tokens.
        flops: FLOPs of the hidden states.
        seconds: seconds of the hidden states.
        suffix_flops: the part of ``flops`` after the split layer.
        suffix_seconds: the part of ``seconds`` after the split layer.
        projection_flops: FLOPs of the vocabulary projection, the losses and the entropies.
        projection_seconds: seconds of the same.
        feature_flops: FLOPs of the same sweep over the vocabulary that only features need, and of the comparison with the
            preceding chunk.
        feature_seconds: seconds of the former, in proportion to its FLOPs, and of all features.
        features: the features of ``features.table.FROZEN``.
        split: residual stream at the split layer, S rows: T, and one more for a beginning-of-sequence token in front of
            the chunk, or of the stream; None if no arm needs it.
    """

    stream_id: str
    hidden: Float[np.ndarray, "*N T D"]
    targets: Int[np.ndarray, "*N T"]
    mask: Bool[np.ndarray, "*N T"]
    entropy: Float[np.ndarray, "*N T"]
    nll_frozen: Float[np.ndarray, "*N T"]
    loss_frozen: Float[np.ndarray, "*N"]
    n_bytes: Int[np.ndarray, "*N"]
    flops: Float[np.ndarray, "*N"]
    seconds: Float[np.ndarray, "*N"]
    suffix_flops: Float[np.ndarray, "*N"]
    suffix_seconds: Float[np.ndarray, "*N"]
    projection_flops: Float[np.ndarray, "*N"]
    projection_seconds: Float[np.ndarray, "*N"]
    feature_flops: Float[np.ndarray, "*N"]
    feature_seconds: Float[np.ndarray, "*N"]
    features: Float[np.ndarray, "*N F"]
    split: Float[np.ndarray, "*N S D"] | None = None


#: Fields that the corpus in chunks has; the others come from the backbone.
FROM_CORPUS = ("stream_id", "targets", "mask", "n_bytes")


def mean_loss(nll: Float[np.ndarray, "*N T"], mask: Bool[np.ndarray, "*N T"]) -> Float[np.ndarray, "*N"]:
    """Return the mean loss of each chunk from the losses of its tokens, nats per token."""
    return np.asarray(nll.astype(np.float64).sum(-1) / mask.sum(-1))
