"""What names say: a method's family and budget, a label's kind of fast weights and context, and their reading order."""

from __future__ import annotations

from collections.abc import Sequence

from ponderttt.names import (
    CONTROL_METHODS,
    FIXED_METHODS,
    KINDS,
    ORACLE_METHODS,
    OTHER_PROTOCOLS,
    RULE_METHODS,
)

#: Fixed in advance, whatever is seen: what a rule has to beat at equal cost.
FIXED_SCHEDULES = (*FIXED_METHODS, "schedule")
#: Methods that are held to a budget, which a name such as ``entropy@1.5`` may state.
BUDGETED = (*(method for method in RULE_METHODS if method != "schedule"), *ORACLE_METHODS)
#: Best first: only the exhaustive search is an upper bound.
ORACLES = tuple(reversed(ORACLE_METHODS))

_METHOD_ORDER = ("plain", "context", *FIXED_SCHEDULES, *BUDGETED, *CONTROL_METHODS, *OTHER_PROTOCOLS)
_PROTOCOL_ORDER = ("score_first", *OTHER_PROTOCOLS)


def split_method(method: str) -> tuple[str, str]:
    """Base name and budget suffix: ``entropy@1.5`` is ("entropy", "@1.5"), ``entropy`` is ("entropy", "")."""
    base, at, budget = method.partition("@")
    return base, at + budget


def stated_budget(method: str) -> float | None:
    """The budget that a method's name states; ``None`` where it states none."""
    _, suffix = split_method(method)
    return float(suffix[1:]) if suffix else None


def kind_of(fast_weights: str) -> str:
    """The kind of fast weights of a label: ``memory`` of ``memory+context_1``."""
    return fast_weights.partition("+")[0]


def rank_of_method(method: str) -> tuple[int, float, int, str]:
    """Sort key: what is fixed, then each budget with random decisions, rules and oracles, then the controls.

    The budget without a suffix is the study's own and comes first.
    """
    base, _ = split_method(method)
    place = _place(_METHOD_ORDER, "context" if base.startswith("context_") else base)
    block = 1 if base in BUDGETED else 0 if place < _METHOD_ORDER.index(BUDGETED[0]) else 2
    return block, stated_budget(method) or 0.0, place, method


def rank_of_protocol(protocol: str) -> int:
    """Sort key: results first, leaks last."""
    return _place(_PROTOCOL_ORDER, protocol)


def rank_of_fast_weights(fast_weights: str) -> tuple[int, str]:
    """Sort key: none, then each kind with its contexts beside it."""
    return _place(("none", *KINDS), kind_of(fast_weights)), fast_weights


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)
