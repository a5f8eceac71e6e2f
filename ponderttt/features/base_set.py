"""The base set: 32 features in six groups."""

from __future__ import annotations

from math import inf

from ponderttt.features.feature import D, Feature, L, N, T, frozen, loop

BASE_SET: tuple[Feature, ...] = (
    frozen("confidence", "entropy_mean", 0, inf, T, "Mean entropy of the frozen predictions, nats."),
    frozen("confidence", "entropy_max", 0, inf, T, "Largest entropy of a frozen prediction, nats."),
    frozen("confidence", "confidence_mean", 0, 1, T, "Mean probability of the most probable next token."),
    frozen(
        "confidence",
        "perplexity",
        1,
        4.9e8,
        T,
        "exp of the mean frozen loss, which is cut at 20 nats per token.",
    ),
    frozen("activation", "hidden_mean", -inf, inf, T * D, "Mean entry of the final hidden states."),
    frozen(
        "activation",
        "hidden_std",
        0,
        inf,
        3 * T * D,
        "Standard deviation of the entries of the final hidden states.",
    ),
    frozen(
        "activation",
        "hidden_near_zero",
        0,
        1,
        2 * T * D,
        "Share of entries of the final hidden states whose size is below a tenth of their standard deviation.",
    ),
    frozen("activation", "hidden_max", -inf, inf, T * D, "Largest entry of the final hidden states."),
    frozen("activation", "hidden_min", -inf, inf, T * D, "Smallest entry of the final hidden states."),
    frozen(
        "activation",
        "hidden_range",
        0,
        inf,
        2 * T,
        "Mean over tokens of the distance from the smallest to the largest entry of the token's hidden state.",
    ),
    frozen(
        "attention",
        "attention_entropy_mean",
        0,
        inf,
        L * N * T,
        "Mean attention entropy over tokens, heads and observed blocks, nats.",
    ),
    frozen(
        "attention",
        "attention_entropy_max",
        0,
        inf,
        L * N * T,
        "Largest attention entropy of a token, each averaged over heads and observed blocks, nats.",
    ),
    frozen(
        "attention",
        "attention_range",
        0,
        inf,
        L * N * T,
        "Mean distance in tokens that attention looks back, as a share of the chunk size.",
    ),
    frozen(
        "attention",
        "attention_sparsity",
        0,
        1,
        L * N * T,
        "Share of visible keys with less than a tenth of the uniform weight, averaged over tokens, heads and observed blocks.",
    ),
    frozen(
        "code", "distinct_token_ratio", 0, 1, 0, "Different lexical tokens as a share of all lexical tokens."
    ),
    frozen(
        "code",
        "repetition",
        0,
        1,
        0,
        "Share of the runs of three lexical tokens that occurred earlier in the chunk.",
    ),
    frozen("code", "identifier_share", 0, 1, 0, "Share of lexical tokens that are names."),
    frozen("code", "keyword_share", 0, 1, 0, "Share of lexical tokens that are words of the language."),
    frozen(
        "code", "indent_share", 0, 1, 0, "Share of characters that are white space at the start of a line."
    ),
    frozen(
        "code",
        "bracket_depth",
        0,
        1,
        0,
        "d / (1 + d), d the mean number of open brackets around a lexical token; a bracket is outside itself.",
    ),
    frozen(
        "code",
        "compressibility",
        0,
        1,
        0,
        "Size of the text after DEFLATE as a share of its size, at most 1.",
    ),
    frozen(
        "code", "comment_share", 0, 1, 0, "Share of characters inside comments and documentation strings."
    ),
    loop(
        "history",
        "loss_ema",
        0,
        inf,
        3,
        "Moving average of the committed loss up to this chunk, nats per token.",
    ),
    loop(
        "history",
        "gain_ema",
        -inf,
        inf,
        4,
        "Moving average of the frozen loss minus the committed loss up to this chunk, nats per token.",
    ),
    loop(
        "history",
        "cost_ema",
        0,
        inf,
        3,
        "Moving average of what the actions so far cost, in multiples of SKIP; 1 before the first.",
    ),
    loop("history", "last_action", 0, 1, 1, "Updates that followed the chunk before, divided by 4."),
    loop("sequence", "stream_position", 0, 1, 2, "t / (t + 4) for the chunk of index t."),
    frozen(
        "sequence",
        "document_boundary",
        0,
        1,
        2,
        "d / (1 + d), d the number of documents that begin in the chunk.",
    ),
    frozen("sequence", "valid_tokens", 0, 1, T, "Share of positions of the chunk that hold a real token."),
    loop(
        "sequence",
        "budget_remaining",
        0,
        1,
        2,
        "Share of the stream's budget that is not spent yet; 1 without a budget.",
    ),
    loop("sequence", "chunks_left", 0, 1, 2, "Share of the stream's chunks that come after this one."),
    loop(
        "sequence",
        "budget_rate",
        0,
        inf,
        3,
        "Budget left per chunk from this one on, relative to the budget per chunk; 1 without a budget.",
    ),
)
