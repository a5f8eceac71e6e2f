"""The 64 named features: their order, their places, and the page ``docs/features.md``.

The first 32 are the base set, in six groups; the others are the advanced set.  Where a feature is measured decides
its source: ``frozen`` features depend on the chunk alone and are cached with the frozen pass, ``loop`` features depend
on what an arm has done with the stream so far.
"""

from __future__ import annotations

from math import inf

from ponderttt.features.advanced_set import ADVANCED_SET
from ponderttt.features.base_set import BASE_SET
from ponderttt.features.feature import EMA_STEP, D, Feature, L, N, S, T

__all__ = ["BASE", "FEATURES", "FROZEN", "NAMES", "Feature", "as_markdown", "frozen_index", "index"]

FEATURES: tuple[Feature, ...] = (*BASE_SET, *ADVANCED_SET)
#: Number of features in the base set.
BASE = len(BASE_SET)
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
        "printed by `python -m ponderttt.features.table`; the rows in `base_set.py` and `advanced_set.py` are the definition.",
        "",
        f"The first {BASE} are the base set, in six groups; the others are the advanced set. *Frozen* features are measured once",
        "by the frozen pass and cached with it; *loop* features depend on what an arm did. Padding is left out of all of them,",
        "and none knows anything of a later chunk: a chunk's own labels are used once it is scored. Policies see them",
        "normalised with the mean and the standard deviation over training streams, clipped to ±5. A moving average gives the",
        f"newest value a weight of {EMA_STEP}; the first value starts it.",
        "",
        f"FLOPs are for a chunk of {T} tokens, width {D}, {L} observed blocks of {N} heads and gradients sketched in {S} numbers;",
        f"work that several features share is counted at one of them, so that they add up: {total / 1e9:.2f} GFLOPs for all.",
        "Features of the text read characters and cost no floating-point operations.",
        "",
        "| # | feature | group | source | range | FLOPs | definition |",
        "|--:|---|---|---|---|--:|---|",
    ]
    for i, f in enumerate(FEATURES):
        span = f"{_bound(f.low)} … {_bound(f.high)}"
        row = (str(i), f"`{f.name}`", f.group, f.source, span, f"{f.flops:,}", f.definition)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _bound(value: float) -> str:
    return f"{value:.2g}" if abs(value) != inf else "−∞" if value < 0 else "∞"


if __name__ == "__main__":
    print(as_markdown(), end="")
