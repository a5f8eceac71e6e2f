"""The action table and what an action costs, nominally."""

from __future__ import annotations

from enum import IntEnum


class Action(IntEnum):
    """What may follow a scored chunk; the value is the action's index in every table and policy output."""

    SKIP = 0
    UPDATE_1 = 1
    UPDATE_2 = 2
    UPDATE_4 = 3

    @property
    def steps(self) -> int:
        """Number of updates of the fast weights: exactly 0, 1, 2 or 4."""
        return (0, 1, 2, 4)[self]

    @property
    def nominal_cost(self) -> float:
        """Cost in multiples of one SKIP, the unit in which budgets are stated: 1, 3, 6 or 12."""
        return (1.0, 3.0, 6.0, 12.0)[self]
