"""The four actions and their nominal costs."""

from __future__ import annotations

from enum import IntEnum


class Action(IntEnum):
    """An action after a scored chunk; its value is its index in all tables and policy outputs."""

    SKIP = 0
    UPDATE_1 = 1
    UPDATE_2 = 2
    UPDATE_4 = 3

    @property
    def steps(self) -> int:
        """Number of updates of the fast weights: 0, 1, 2 or 4."""
        return (0, 1, 2, 4)[self]

    @property
    def nominal_cost(self) -> float:
        """Cost in multiples of SKIP, the unit of budgets: 1, 3, 6 or 12."""
        return (1.0, 3.0, 6.0, 12.0)[self]
