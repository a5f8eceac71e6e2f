"""The 64 named features: their order, their places, and the page ``docs/features.md``.

The first 32 are the base set, in six groups; the others are the advanced set.  Where a feature is measured decides
its source: ``frozen`` features do not depend on the arm and are cached with the frozen pass; ``loop`` features depend on
what the arm did with the stream so far.
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
    """Return the place of a feature in :data:`NAMES`; KeyError if it is not there."""
    return _INDEX[name]


def frozen_index(name: str) -> int:
    """Return the place of a feature in :data:`FROZEN`; KeyError if it is not there."""
    return _FROZEN_INDEX[name]


def as_markdown() -> str:
    """Return the page ``docs/features.md``."""
    total = sum(feature.flops for feature in FEATURES)
    lines = [
        "# Features",
        "",
        "The features that policies see of a scored chunk and of the stream so far (`ponderttt/features/`).",
        "`python -m ponderttt.features.table` prints this page; the definitions are in `base_set.py` and `advanced_set.py`.",
        "",
        f"The first {BASE} are the base set, in six groups; the others are the advanced set. The frozen pass measures and caches",
        "*frozen* features; *loop* features depend on what the arm did. No feature uses padding or a later chunk; a chunk's own",
        "labels are used only once it is scored. Policies see features normalised with the mean and the standard deviation over",
        f"training streams and clipped to ±5. In a moving average the newest value has weight {EMA_STEP}; the first value starts it.",
        "",
        f"FLOPs are for a chunk of {T} tokens, width {D}, {L} observed blocks of {N} heads and gradients sketched in {S} numbers.",
        f"Work that several features share is counted at one of them, so the FLOPs add up: {total / 1e9:.2f} GFLOPs for all.",
        "Features of the text read characters and need no floating-point operations.",
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
