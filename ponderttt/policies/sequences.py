"""All sequences of actions that spend a stream's budget: how many there are, which actions occur in them, and a list.

A budget leaves room for decisions only if there is more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.policies.budget import HORIZON, matched_probabilities, unit_name, whole_units

#: Counts stop here; nobody can tell larger ones apart.
MANY = 10**15


@dataclass(frozen=True)
class Allowance:
    """What a stream of N chunks spends.

    Attributes:
        units: whole units by which each action costs more than SKIP.
        chunks: N; the action after the last one is SKIP.
        total: units that every sequence spends.
    """

    units: tuple[int, ...]
    chunks: int
    total: int

    @classmethod
    def of(cls, costs: Sequence[float], budget: float, chunks: int) -> Allowance:
        """Return what a budget gives a stream; a total that no sequence has is rounded down.

        Args:
            costs: costs of the four actions, in multiples of SKIP.
            budget: mean cost per chunk.
            chunks: N, at least 1.

        Raises:
            PonderTTTError: no mixture of the actions has the budget.
        """
        matched_probabilities(costs, budget)
        units, size = whole_units(costs, budget)
        # As policies.budget.stream_units rounds.
        given = int(np.floor((budget - min(costs)) / size * chunks + 1e-3))
        most = (chunks - 1) * max(units)
        if chunks > HORIZON:
            return cls(units, chunks, min(given, most))
        possible = _ways(units, chunks - 1)[-1][: given + 1] > 0
        return cls(units, chunks, int(np.flatnonzero(possible).max()))

    @cached_property
    def ways(self) -> list[Int[np.ndarray, " C"]]:
        """Number of sequences of n = 0, 1, … actions by their units, at most :data:`MANY`."""
        return _ways(self.units, self.chunks - 1)

    @property
    def count(self) -> int:
        """Number of sequences, at most :data:`MANY`."""
        return int(self.ways[-1][self.total])

    @property
    def actions(self) -> list[Action]:
        """The actions that occur before the last chunk in at least one sequence."""
        return [action for action, can in zip(Action, self.allowed(0, 0), strict=True) if can]

    @property
    def nodes(self) -> int:
        """Number of different starts of these sequences, before each chunk."""
        count = 0
        for t in range(self.chunks):
            rest = self.ways[self.chunks - 1 - t]
            starts = self.ways[t][: self.total + 1]
            left = self.total - np.arange(len(starts))
            can = (left < len(rest)) & (rest[np.minimum(left, len(rest) - 1)] > 0)
            count += int(np.minimum(starts[can].sum(dtype=np.float64), MANY))
        return count

    def spent(self, actions: Sequence[int]) -> int:
        """Return the units of actions."""
        return sum(self.units[action] for action in actions)

    def allowed(self, spent: int, t: int) -> Bool[np.ndarray, " A"]:
        """Return which actions on chunk t leave a rest that can be spent exactly, after ``spent`` units."""
        return self.ways_of(spent, t) > 0

    def ways_of(self, spent: int, t: int) -> Int[np.ndarray, " A"]:
        """Return the number of sequences that go on with each action on chunk t, after ``spent`` units."""
        left = self.chunks - 2 - t
        if left < 0:
            return np.array([int(action is Action.SKIP) for action in Action])
        rest = self.total - spent - np.asarray(self.units)
        within = (rest >= 0) & (rest < len(self.ways[left]))
        return np.where(within, self.ways[left][np.where(within, rest, 0)], 0)

    def sequences(self) -> Int[np.ndarray, "K N"]:
        """Return all sequences, ordered as numbers in base 4."""
        found, spent = np.zeros((1, 0), np.int8), np.zeros(1, int)
        for t in range(self.chunks):
            masks = {int(s): self.allowed(int(s), t) for s in np.unique(spent)}
            parent, action = np.nonzero(np.stack([masks[int(s)] for s in spent]))
            found = np.column_stack([found[parent], action.astype(np.int8)])
            spent = spent[parent] + np.asarray(self.units)[action]
        return found


def _ways(units: Sequence[int], longest: int) -> list[Int[np.ndarray, " C"]]:
    width = longest * max(units) + 1
    rows = [np.zeros(width, np.int64)]
    rows[0][0] = 1
    for _ in range(longest):
        longer = np.zeros(width, np.int64)
        for cost in units:
            longer[cost:] += rows[-1][: width - cost]
        rows.append(np.minimum(longer, MANY))
    return rows


def check_room(costs: Sequence[float], budget: float, chunks: int) -> str | None:
    """Check that a budget leaves something to decide on streams of so many chunks.

    Args:
        costs: costs of the four actions, in multiples of SKIP.
        budget: mean cost per chunk.
        chunks: chunks of the longest stream.

    Returns:
        One line if an action occurs in no sequence; else None.

    Raises:
        PonderTTTError: only one sequence spends the budget, or no mixture of the actions has it.
    """
    if not 1 < chunks <= HORIZON:
        return None
    allowance = Allowance.of(costs, budget, chunks)
    given = f"a budget of {budget:g} × SKIP in {unit_name(costs)} leaves streams of {chunks} chunks"
    if allowance.count == 1:
        only = ", ".join(Action(int(action)).name for action in allowance.sequences()[0])
        raise PonderTTTError(
            f"{given} a single sequence of actions ({only}), so there is nothing to decide; choose another budget or "
            "longer streams"
        )
    missing = [action.name for action in Action if action not in allowance.actions]
    if not missing:
        return None
    count = f"{allowance.count:,}" if allowance.count < MANY else f"more than {MANY:,}"
    return f"{given} {count} sequences of actions, and {' and '.join(missing)} in none of them"
