"""The order in which methods, protocols and fast weights are read, and the families that this needs."""

from __future__ import annotations

from collections.abc import Sequence

from ponderttt.names import (
    BUDGETED_METHODS,
    CONTROL_METHODS,
    FIXED_METHODS,
    KINDS,
    ORACLE_METHODS,
    OTHER_PROTOCOLS,
    split_method,
    stated_budget,
)

#: Fixed in advance, whatever is seen: what a rule has to beat at equal cost.
FIXED_SCHEDULES = (*FIXED_METHODS, "schedule")
#: Best first: only the exhaustive search is an upper bound.
ORACLES = tuple(reversed(ORACLE_METHODS))

_METHOD_ORDER = (
    "plain",
    "context",
    *FIXED_SCHEDULES,
    "gumbel_soft",
    *BUDGETED_METHODS,
    *CONTROL_METHODS,
    *OTHER_PROTOCOLS,
)
_PROTOCOL_ORDER = ("score_first", *OTHER_PROTOCOLS)


def kind_of(fast_weights: str) -> str:
    """The kind of fast weights of a label: ``memory`` of ``memory+context_1``, ``lora`` of ``lora-rank_64``."""
    return fast_weights.partition("+")[0].partition("-")[0]


def rank_of_method(method: str) -> tuple[int, float, int, str]:
    """Sort key: what is fixed, then each budget with random decisions, rules and oracles, then the controls.

    The budget without a suffix is the study's own and comes first.
    """
    base, _ = split_method(method)
    place = _place(_METHOD_ORDER, "context" if base.startswith("context_") else base)
    block = 1 if base in BUDGETED_METHODS else 0 if place < _METHOD_ORDER.index(BUDGETED_METHODS[0]) else 2
    return block, stated_budget(method) or 0.0, place, method


def rank_of_protocol(protocol: str) -> int:
    """Sort key: results first, leaks last."""
    return _place(_PROTOCOL_ORDER, protocol)


def rank_of_fast_weights(fast_weights: str) -> tuple[int, str]:
    """Sort key: none, then each kind with its contexts beside it."""
    return _place(("none", *KINDS), kind_of(fast_weights)), fast_weights


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)
