"""The 64 named features: one row each with its group, definition, range and FLOPs; ``docs/features.md`` is made of it.

The first 32 are the base set, in six groups; the others are the advanced set.  Where a feature is measured decides
its source: ``frozen`` features depend on the chunk alone and are cached with the frozen pass, ``loop`` features depend
on what an arm has done with the stream so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

#: The sizes for which FLOPs are stated: tokens, width, heads, observed blocks, sketch of a gradient.
T, D, N, L, S = 512, 576, 9, 2, 8
#: Number of features in the base set.
BASE = 32


@dataclass(frozen=True)
class Feature:
    """One signal.

    Attributes:
        name: as in records and configuration.
        group: of related features.
        definition: what it is, in a sentence.
        low: smallest value that it can have.
        high: largest value that it can have.
        flops: floating-point operations per chunk of 512 tokens and width 576; work that several features share is
            counted at the first of them, so that the sum is that of all.
        source: measured by the frozen pass, or by the loop.
    """

    name: str
    group: str
    definition: str
    low: float
    high: float
    flops: int
    source: Literal["frozen", "loop"]


def _frozen(group: str, name: str, low: float, high: float, flops: int, definition: str) -> Feature:
    return Feature(name, group, definition, low, high, flops, "frozen")


def _loop(group: str, name: str, low: float, high: float, flops: int, definition: str) -> Feature:
    return Feature(name, group, definition, low, high, flops, "loop")


# Sorting counts a comparison as an operation: T log2 T.
_SORT = T * 9

FEATURES: tuple[Feature, ...] = (
    _frozen("confidence", "entropy_mean", 0, inf, T, "Mean entropy of the frozen predictions, nats."),
    _frozen("confidence", "entropy_max", 0, inf, T, "Largest entropy of a frozen prediction, nats."),
    _frozen("confidence", "confidence_mean", 0, 1, T, "Mean probability of the most probable next token."),
    _frozen(
        "confidence",
        "perplexity",
        1,
        4.9e8,
        T,
        "exp of the mean frozen loss, which is cut at 20 nats per token.",
    ),
    _frozen("activation", "hidden_mean", -inf, inf, T * D, "Mean entry of the final hidden states."),
    _frozen(
        "activation",
        "hidden_std",
        0,
        inf,
        3 * T * D,
        "Standard deviation of the entries of the final hidden states.",
    ),
    _frozen(
        "activation",
        "hidden_near_zero",
        0,
        1,
        2 * T * D,
        "Share of entries of the final hidden states whose size is below a tenth of their standard deviation.",
    ),
    _frozen("activation", "hidden_max", -inf, inf, T * D, "Largest entry of the final hidden states."),
    _frozen("activation", "hidden_min", -inf, inf, T * D, "Smallest entry of the final hidden states."),
    _frozen(
        "activation",
        "hidden_range",
        0,
        inf,
        2 * T,
        "Mean over tokens of the distance from the smallest to the largest entry of the token's hidden state.",
    ),
    _frozen(
        "attention",
        "attention_entropy_mean",
        0,
        inf,
        L * N * T,
        "Mean attention entropy over tokens, heads and observed blocks, nats.",
    ),
    _frozen(
        "attention",
        "attention_entropy_max",
        0,
        inf,
        L * N * T,
        "Largest attention entropy of a token, each averaged over heads and observed blocks, nats.",
    ),
    _frozen(
        "attention",
        "attention_range",
        0,
        inf,
        L * N * T,
        "Mean distance in tokens that attention looks back, as a share of the chunk size.",
    ),
    _frozen(
        "attention",
        "attention_sparsity",
        0,
        1,
        L * N * T,
        "Mean attention sparsity over tokens, heads and observed blocks.",
    ),
    _frozen(
        "code", "distinct_token_ratio", 0, 1, 0, "Different lexical tokens as a share of all lexical tokens."
    ),
    _frozen(
        "code",
        "repetition",
        0,
        1,
        0,
        "Share of the runs of three lexical tokens that occurred earlier in the chunk.",
    ),
    _frozen("code", "identifier_share", 0, 1, 0, "Share of lexical tokens that are names."),
    _frozen("code", "keyword_share", 0, 1, 0, "Share of lexical tokens that are words of the language."),
    _frozen(
        "code", "indent_share", 0, 1, 0, "Share of characters that are white space at the start of a line."
    ),
    _frozen(
        "code",
        "bracket_depth",
        0,
        1,
        0,
        "d / (1 + d), d the mean number of open brackets around a lexical token; a bracket is outside itself.",
    ),
    _frozen(
        "code",
        "compressibility",
        0,
        1,
        0,
        "Size of the text after DEFLATE as a share of its size, at most 1.",
    ),
    _frozen(
        "code", "comment_share", 0, 1, 0, "Share of characters inside comments and documentation strings."
    ),
    _loop(
        "history",
        "loss_ema",
        0,
        inf,
        3,
        "Moving average of the committed loss up to this chunk, nats per token.",
    ),
    _loop(
        "history",
        "gain_ema",
        -inf,
        inf,
        4,
        "Moving average of the frozen loss minus the committed loss up to this chunk, nats per token.",
    ),
    _loop(
        "history",
        "cost_ema",
        0,
        inf,
        3,
        "Moving average of what the actions so far cost, in multiples of SKIP; 1 before the first.",
    ),
    _loop("history", "last_action", 0, 1, 1, "Updates that followed the chunk before, divided by 4."),
    _loop("sequence", "stream_position", 0, 1, 2, "t / (t + 4) for the chunk of index t."),
    _frozen(
        "sequence",
        "document_boundary",
        0,
        1,
        2,
        "d / (1 + d), d the number of documents that begin in the chunk.",
    ),
    _frozen("sequence", "valid_tokens", 0, 1, T, "Share of positions of the chunk that hold a real token."),
    _loop(
        "sequence",
        "budget_remaining",
        0,
        1,
        2,
        "Share of the stream's budget that is not spent yet; 1 without a budget.",
    ),
    _loop("sequence", "chunks_left", 0, 1, 2, "Share of the stream's chunks that come after this one."),
    _loop(
        "sequence",
        "budget_rate",
        0,
        inf,
        3,
        "Budget left per chunk from this one on, relative to the budget per chunk; 1 without a budget.",
    ),
    *(
        _frozen(
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
        _frozen(
            "confidence quantiles",
            f"confidence_q{q}",
            0,
            1,
            _SORT if q == 10 else 4,
            f"{q} % quantile over tokens of the probability of the most probable next token.",
        )
        for q in (10, 25, 50, 75, 90)
    ),
    _frozen("loss quantiles", "nll_q50", 0, inf, _SORT, "Median frozen loss of a token, nats."),
    _frozen("loss quantiles", "nll_q90", 0, inf, 4, "90 % quantile over tokens of the frozen loss, nats."),
    _frozen(
        "loss quantiles", "nll_high_share", 0, 1, T, "Share of tokens whose frozen loss is above 3 nats."
    ),
    _frozen(
        "attention dispersion",
        "attention_head_std",
        0,
        inf,
        4 * L * N,
        "Standard deviation over observed heads of the head's mean attention entropy, nats.",
    ),
    _frozen(
        "attention dispersion",
        "attention_head_min",
        0,
        inf,
        L * N,
        "Smallest mean attention entropy of an observed head, nats.",
    ),
    _frozen(
        "attention dispersion",
        "attention_head_max",
        0,
        inf,
        L * N,
        "Largest mean attention entropy of an observed head, nats.",
    ),
    _frozen(
        "attention dispersion",
        "attention_token_std",
        0,
        inf,
        4 * T,
        "Standard deviation over tokens of the attention entropy averaged over heads and observed blocks, nats.",
    ),
    _frozen(
        "gradient",
        "gradient_variance",
        0,
        inf,
        4 * T * S,
        "Variance over tokens of the gradient at the fast-weight read: trace of the covariance of its sketch.",
    ),
    _frozen(
        "gradient",
        "gradient_mean_norm",
        0,
        inf,
        T * S,
        "Norm of the mean over tokens of the gradient's sketch: the size of the step that tokens agree on.",
    ),
    _frozen(
        "gradient",
        "gradient_coherence",
        0,
        1,
        2 * S,
        "Squared norm of the mean gradient divided by the mean squared norm, both of the sketch.",
    ),
    _loop(
        "loss deltas",
        "loss_change",
        -inf,
        inf,
        1,
        "Committed loss minus that of the chunk before, nats per token; 0 at the first chunk.",
    ),
    _loop(
        "loss deltas",
        "loss_above_ema",
        -inf,
        inf,
        1,
        "Committed loss minus its moving average up to the chunk before, nats per token; 0 at the first chunk.",
    ),
    _loop(
        "loss deltas",
        "frozen_loss_change",
        -inf,
        inf,
        1,
        "Frozen loss minus that of the chunk before, nats per token; 0 at the first chunk.",
    ),
    _loop(
        "reconstruction",
        "reconstruction_ema",
        0,
        inf,
        3,
        "Moving average up to this chunk of how badly hidden states were reconstructed before learning from them.",
    ),
    _loop(
        "reconstruction",
        "reconstruction_drift",
        -inf,
        inf,
        1,
        "This chunk's reconstruction loss minus its moving average up to the chunk before; 0 at the first chunk.",
    ),
    _frozen(
        "reconstruction",
        "reconstruction_error",
        0,
        1,
        2 * T * T * D + 5 * T * T + 4 * T * D,
        "Mean squared error, per token at most 1, of the unit centred hidden states reconstructed from the chunk before "
        "by softmax regression; 1 at the first chunk.",
    ),
    _frozen(
        "similarity",
        "similarity_mean",
        -1,
        1,
        2 * T * T * D + T * T + 8 * T * D,
        "Mean over tokens of the largest cosine similarity to a hidden state of the chunk before, both centred on that "
        "chunk's mean; 0 at the first chunk.",
    ),
    _frozen(
        "similarity",
        "similarity_q90",
        -1,
        1,
        _SORT,
        "90 % quantile over tokens of that largest similarity; 0 at the first chunk.",
    ),
    _frozen(
        "similarity",
        "similarity_high_share",
        0,
        1,
        T,
        "Share of tokens whose largest similarity is above 0.9; 0 at the first chunk.",
    ),
    _frozen(
        "trend",
        "entropy_slope",
        -inf,
        inf,
        5 * T,
        "Slope of the least-squares line through the entropies of the chunk's tokens, nats per chunk size.",
    ),
    _frozen(
        "trend",
        "nll_half_change",
        -inf,
        inf,
        T,
        "Mean frozen loss of the second half of the tokens minus that of the first, nats.",
    ),
    _frozen(
        "trend",
        "entropy_nll_correlation",
        -1,
        1,
        8 * T,
        "Correlation over tokens of the entropy and the frozen loss; 0 where one of them is constant.",
    ),
)

NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
#: Features that the frozen pass measures, in the order of the table.
FROZEN: tuple[str, ...] = tuple(feature.name for feature in FEATURES if feature.source == "frozen")

_INDEX = {name: i for i, name in enumerate(NAMES)}
_FROZEN_INDEX = {name: i for i, name in enumerate(FROZEN)}


def index(name: str) -> int:
    """Where a feature stands in :data:`NAMES`; KeyError if it does not."""
    return _INDEX[name]


def frozen_index(name: str) -> int:
    """Where a feature stands in :data:`FROZEN`; KeyError if it does not."""
    return _FROZEN_INDEX[name]


def as_markdown() -> str:
    """The page ``docs/features.md``."""
    total = sum(feature.flops for feature in FEATURES)
    lines = [
        "# Features",
        "",
        "What a policy can see of a chunk once it is scored, and of the stream so far (`ponderttt/features/`). This page is",
        "printed by `python -m ponderttt.features.table`; the table in that file is the definition.",
        "",
        f"The first {BASE} are the base set, in six groups; the others are the advanced set. *Frozen* features are measured once",
        "by the frozen pass and cached with it; *loop* features depend on what an arm did. Padding is left out of all of them,",
        "and none knows anything of a later chunk: a chunk's own labels are used once it is scored. Policies see them",
        "normalised with the mean and the standard deviation over training streams, clipped to ±5.",
        "",
        f"FLOPs are for a chunk of {T} tokens, width {D}, {L} observed blocks of {N} heads and gradients sketched in {S}",
        "numbers. Work that several features share is counted at the first that needs most of it, so that they add up: "
        f"{total / 1e9:.2f} GFLOPs",
        "for all of them. Features of the text cost characters to read, and no floating-point operations.",
        "",
        "| # | feature | group | source | range | FLOPs | definition |",
        "|--:|---|---|---|---|--:|---|",
    ]
    for i, f in enumerate(FEATURES):
        span = f"{_bound(f.low)} … {_bound(f.high)}"
        lines.append(
            f"| {i} | `{f.name}` | {f.group} | {f.source} | {span} | {f.flops:,} | {f.definition} |".replace(
                "inf", "∞"
            )
        )
    return "\n".join(lines) + "\n"


def _bound(value: float) -> str:
    return f"{value:.2g}" if abs(value) != inf else "−∞" if value < 0 else "∞"


if __name__ == "__main__":
    print(as_markdown(), end="")
