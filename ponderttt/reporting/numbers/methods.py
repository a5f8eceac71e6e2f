"""The order in which methods, protocols and fast weights are listed, and the families that figures and tables share."""

from __future__ import annotations

from collections.abc import Sequence

from ponderttt.contexts import ALONE
from ponderttt.names import (
    BUDGETED_METHODS,
    CONTROL_METHODS,
    FIXED_METHODS,
    KINDS,
    ORACLE_METHODS,
    OTHER_PROTOCOLS,
    MethodName,
)

#: Schedules that look at no signal: what a policy must beat at equal cost.
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
    """Return the kind in a label of the table: ``none``, ``memory`` for ``memory+full``, ``lora`` for ``lora-rank_64``."""
    return fast_weights.partition("+")[0].partition("-")[0]


def rank_of_method(method: MethodName) -> tuple[int, float, int, tuple[int, int], str]:
    """Sort key: fixed schedules; each budget with random decisions, rules and oracles; controls and other protocols.

    The budget of the grid comes first, and the context that shows less.
    """
    context = method.context or ALONE
    place = _place(_METHOD_ORDER, method.base if context == ALONE else "context")
    block = 1 if method.is_budgeted else 0 if place < _METHOD_ORDER.index(BUDGETED_METHODS[0]) else 2
    return block, method.budget or 0.0, place, context.order, str(method)


def rank_of_protocol(protocol: str) -> int:
    """Sort key: ``score_first``, then protocols that are no result."""
    return _place(_PROTOCOL_ORDER, protocol)


def rank_of_fast_weights(fast_weights: str) -> tuple[int, str]:
    """Sort key: none, then each kind followed by its variants and contexts."""
    return _place(("none", *KINDS), kind_of(fast_weights)), fast_weights


def _place(order: Sequence[str], name: str) -> int:
    return order.index(name) if name in order else len(order)
