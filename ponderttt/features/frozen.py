"""The features that the frozen pass measures of one chunk, from the backbone's outputs and from the text.

They use only real tokens (rows of padding are cut off first), of this chunk and of the previous one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ponderttt.features.similarity import nearest_and_error
from ponderttt.features.table import FROZEN
from ponderttt.features.text import CODE_METRICS, code_metrics

#: Cap of the mean loss in perplexity, which keeps it finite; nats.
MAX_NLL = 20.0
#: A token with a frozen loss above this is surprising (nats); one with a similarity above this is nearly a repetition.
HIGH_NLL, HIGH_SIMILARITY = 3.0, 0.9
#: An entry whose absolute value is below this fraction of the standard deviation is nearly zero.
NEAR_ZERO = 0.1
_QUANTILES = (10, 25, 50, 75, 90)


class ChunkSignals(NamedTuple):
    """What the frozen pass has of one scored chunk of T positions, padding included.

    Attributes:
        hidden: final normed hidden states.
        mask: True where the target is a real token.
        nll: negative log-likelihood of the targets, nats.
        entropy: entropy of the predictions, nats.
        confidence: probability of the most probable next token.
        gradient_sketch: random projection of the gradient of each token's loss with respect to its hidden state.
        attention_entropy: entropy of attention in L observed blocks with N heads, nats.
        attention_distance: expected distance that attention looks back, tokens.
        attention_sparsity: share of visible keys with little weight, 0..1.
        text: source text of the real tokens that the chunk reads, without separators of documents.
        language: language of the text.
        boundary: number of documents that begin in the chunk.
        previous_hidden: hidden states of the previous chunk; None at the first chunk.
        previous_mask: mask of the previous chunk; None at the first chunk.
    """

    hidden: Float[np.ndarray, "T D"]
    mask: Bool[np.ndarray, " T"]
    nll: Float[np.ndarray, " T"]
    entropy: Float[np.ndarray, " T"]
    confidence: Float[np.ndarray, " T"]
    gradient_sketch: Float[np.ndarray, "T S"]
    attention_entropy: Float[np.ndarray, "L N T"]
    attention_distance: Float[np.ndarray, "L N T"]
    attention_sparsity: Float[np.ndarray, "L N T"]
    text: str
    language: str
    boundary: float
    previous_hidden: Float[np.ndarray, "T D"] | None = None
    previous_mask: Bool[np.ndarray, " T"] | None = None


def frozen_features(signals: ChunkSignals) -> Float[np.ndarray, " F"]:
    """Return the features of :data:`ponderttt.features.table.FROZEN`, in that order; all are finite.

    Raises:
        ValueError: the chunk has no real token.
    """
    real = np.asarray(signals.mask, bool)
    if not real.any():
        raise ValueError("a chunk without a real token has no features")
    nll, entropy, confidence = (
        np.asarray(values, np.float64)[real] for values in (signals.nll, signals.entropy, signals.confidence)
    )
    hidden = np.ascontiguousarray(np.asarray(signals.hidden, np.float32)[real])
    values = (
        _confidence(nll, entropy, confidence)
        | _activation(hidden)
        | _attention(signals, real)
        | dict(zip(CODE_METRICS, code_metrics(signals.text, signals.language), strict=True))
        | {
            "document_boundary": signals.boundary / (1 + signals.boundary),
            "valid_tokens": float(real.mean()),
        }
        | _gradient(np.asarray(signals.gradient_sketch, np.float64)[real])
        | _similarity(signals, real)
        | _trend(nll, entropy, np.flatnonzero(real) / len(real))
    )
    return np.array([values[name] for name in FROZEN])


def _confidence(
    nll: Float[np.ndarray, " M"], entropy: Float[np.ndarray, " M"], confidence: Float[np.ndarray, " M"]
) -> dict[str, float]:
    values = {
        "entropy_mean": entropy.mean(),
        "entropy_max": entropy.max(),
        "confidence_mean": confidence.mean(),
        "perplexity": np.exp(min(nll.mean(), MAX_NLL)),
        "nll_high_share": np.mean(nll > HIGH_NLL),
    }
    for name, signal in (("entropy", entropy), ("confidence", confidence)):
        for q, value in zip(_QUANTILES, np.percentile(signal, _QUANTILES), strict=True):
            values[f"{name}_q{q}"] = value
    values["nll_q50"], values["nll_q90"] = np.percentile(nll, (50, 90))
    return values


def _activation(hidden: Float[np.ndarray, "M D"]) -> dict[str, float]:
    std = float(hidden.std())
    top, bottom = hidden.max(axis=1), hidden.min(axis=1)
    return {
        "hidden_mean": float(hidden.mean()),
        "hidden_std": std,
        "hidden_near_zero": float(np.mean(np.abs(hidden) < NEAR_ZERO * std)),
        "hidden_max": float(top.max()),
        "hidden_min": float(bottom.min()),
        "hidden_range": float((top - bottom).mean()),
    }


def _attention(signals: ChunkSignals, real: Bool[np.ndarray, " T"]) -> dict[str, float]:
    entropy, distance, sparsity = (
        np.asarray(values, np.float64)[:, :, real]
        for values in (signals.attention_entropy, signals.attention_distance, signals.attention_sparsity)
    )
    of_tokens, of_heads = entropy.mean(axis=(0, 1)), entropy.mean(axis=2)
    return {
        "attention_entropy_mean": entropy.mean(),
        "attention_entropy_max": of_tokens.max(),
        "attention_range": distance.mean() / len(real),
        "attention_sparsity": sparsity.mean(),
        "attention_head_std": of_heads.std(),
        "attention_head_min": of_heads.min(),
        "attention_head_max": of_heads.max(),
        "attention_token_std": of_tokens.std(),
    }


def _gradient(sketch: Float[np.ndarray, "M S"]) -> dict[str, float]:
    mean = sketch.mean(axis=0)
    agreed, size = float(mean @ mean), float(np.einsum("MS,MS->M", sketch, sketch).mean())
    return {
        "gradient_variance": max(0.0, size - agreed),
        "gradient_mean_norm": agreed**0.5,
        "gradient_coherence": min(1.0, agreed / size) if size > 0 else 0.0,
    }


def _similarity(signals: ChunkSignals, real: Bool[np.ndarray, " T"]) -> dict[str, float]:
    if signals.previous_hidden is None or signals.previous_mask is None:
        return {
            "similarity_mean": 0.0,
            "similarity_q90": 0.0,
            "similarity_high_share": 0.0,
            "reconstruction_error": 1.0,
        }
    found = nearest_and_error(signals.hidden, real, signals.previous_hidden, signals.previous_mask)
    nearest, error = (np.asarray(values, np.float64)[real] for values in found)
    return {
        "similarity_mean": nearest.mean(),
        "similarity_q90": np.percentile(nearest, 90),
        "similarity_high_share": np.mean(nearest > HIGH_SIMILARITY),
        "reconstruction_error": error.mean(),
    }


def _trend(
    nll: Float[np.ndarray, " M"], entropy: Float[np.ndarray, " M"], position: Float[np.ndarray, " M"]
) -> dict[str, float]:
    place, doubt, loss = position - position.mean(), entropy - entropy.mean(), nll - nll.mean()
    spread = float(place @ place)
    scale = float(np.sqrt((doubt @ doubt) * (loss @ loss)))
    half = len(nll) // 2
    return {
        "entropy_slope": float(place @ doubt) / spread if spread > 0 else 0.0,
        "nll_half_change": nll[half:].mean() - nll[:half].mean() if half else 0.0,
        "entropy_nll_correlation": float(np.clip(doubt @ loss / scale, -1, 1)) if scale > 1e-12 else 0.0,
    }
