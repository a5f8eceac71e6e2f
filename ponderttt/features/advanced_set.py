"""The advanced set: 32 further features."""

from __future__ import annotations

from math import inf

from ponderttt.features.feature import D, Feature, L, N, S, T, frozen, loop

# Sorting counts each comparison as one operation: T log2 T.
_SORT = T * 9

ADVANCED_SET: tuple[Feature, ...] = (
    *(
        frozen(
            "entropy quantiles",
            f"entropy_q{q}",
            0,
            inf,
            _SORT if q == 10 else 4,
            f"{q} % quantile over tokens of the entropy of the frozen predictions, nats.",
        )
        for q in (10, 25, 50, 75, 90)
    ),
    *(
        frozen(
            "confidence quantiles",
            f"confidence_q{q}",
            0,
            1,
            _SORT if q == 10 else 4,
            f"{q} % quantile over tokens of the probability of the most probable next token.",
        )
        for q in (10, 25, 50, 75, 90)
    ),
    frozen("loss quantiles", "nll_q50", 0, inf, _SORT, "Median frozen loss of a token, nats."),
    frozen("loss quantiles", "nll_q90", 0, inf, 4, "90 % quantile over tokens of the frozen loss, nats."),
    frozen("loss quantiles", "nll_high_share", 0, 1, T, "Share of tokens whose frozen loss is above 3 nats."),
    frozen(
        "attention dispersion",
        "attention_head_std",
        0,
        inf,
        4 * L * N,
        "Standard deviation over observed heads of the head's mean attention entropy, nats.",
    ),
    frozen(
        "attention dispersion",
        "attention_head_min",
        0,
        inf,
        L * N,
        "Smallest mean attention entropy of an observed head, nats.",
    ),
    frozen(
        "attention dispersion",
        "attention_head_max",
        0,
        inf,
        L * N,
        "Largest mean attention entropy of an observed head, nats.",
    ),
    frozen(
        "attention dispersion",
        "attention_token_std",
        0,
        inf,
        4 * T,
        "Standard deviation over tokens of the attention entropy averaged over heads and observed blocks, nats.",
    ),
    frozen(
        "gradient",
        "gradient_variance",
        0,
        inf,
        4 * T * S,
        "Variance over tokens of the gradient at the fast-weight read: trace of the covariance of its sketch.",
    ),
    frozen(
        "gradient",
        "gradient_mean_norm",
        0,
        inf,
        T * S,
        "Norm of the mean over tokens of the gradient's sketch: the size of the step that the tokens share.",
    ),
    frozen(
        "gradient",
        "gradient_coherence",
        0,
        1,
        2 * S,
        "Squared norm of the mean gradient divided by the mean squared norm, both of the sketch.",
    ),
    loop(
        "loss deltas",
        "loss_change",
        -inf,
        inf,
        1,
        "Committed loss minus that of the previous chunk, nats per token; 0 at the first chunk.",
    ),
    loop(
        "loss deltas",
        "loss_above_ema",
        -inf,
        inf,
        1,
        "Committed loss minus its moving average up to the previous chunk, nats per token; 0 at the first chunk.",
    ),
    loop(
        "loss deltas",
        "frozen_loss_change",
        -inf,
        inf,
        1,
        "Frozen loss minus that of the previous chunk, nats per token; 0 at the first chunk.",
    ),
    loop(
        "reconstruction",
        "reconstruction_ema",
        0,
        inf,
        3,
        "Moving average, up to this chunk, of the error of reconstructing the hidden states before learning from them.",
    ),
    loop(
        "reconstruction",
        "reconstruction_drift",
        -inf,
        inf,
        1,
        "This chunk's reconstruction error minus its moving average up to the previous chunk; 0 at the first chunk.",
    ),
    frozen(
        "reconstruction",
        "reconstruction_error",
        0,
        1,
        2 * T * T * D + 5 * T * T + 4 * T * D,
        "Mean squared error, per token at most 1, of the unit centred hidden states reconstructed from the previous chunk "
        "by softmax regression; 1 at the first chunk.",
    ),
    frozen(
        "similarity",
        "similarity_mean",
        -1,
        1,
        2 * T * T * D + T * T + 8 * T * D,
        "Mean over tokens of the largest cosine similarity to a hidden state of the previous chunk, both centred on that "
        "chunk's mean; 0 at the first chunk.",
    ),
    frozen(
        "similarity",
        "similarity_q90",
        -1,
        1,
        _SORT,
        "90 % quantile over tokens of that largest similarity; 0 at the first chunk.",
    ),
    frozen(
        "similarity",
        "similarity_high_share",
        0,
        1,
        T,
        "Share of tokens whose largest similarity is above 0.9; 0 at the first chunk.",
    ),
    frozen(
        "trend",
        "entropy_slope",
        -inf,
        inf,
        5 * T,
        "Slope of the least-squares line through the entropies of the chunk's tokens, nats per chunk size.",
    ),
    frozen(
        "trend",
        "nll_half_change",
        -inf,
        inf,
        T,
        "Mean frozen loss of the second half of the tokens minus that of the first, nats.",
    ),
    frozen(
        "trend",
        "entropy_nll_correlation",
        -1,
        1,
        8 * T,
        "Correlation over tokens of the entropy and the frozen loss; 0 where one of them is constant.",
    ),
)
