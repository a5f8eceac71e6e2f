"""The methods of the table: which policy, protocol and lesson each name stands for.

A rule or an oracle spends the budget of the grid; ``entropy@1.5`` spends 1.5 instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ponderttt.config import RulesConfig
from ponderttt.loop.arm import Arm, Protocol, Signal
from ponderttt.loop.controls import Lesson
from ponderttt.loop.programs import ModulePrograms
from ponderttt.names import CONTROL_METHODS, ORACLE_METHODS, budget_of, split_method
from ponderttt.policies.base import Policy
from ponderttt.policies.build import policy_of
from ponderttt.policies.calibration import Calibration

#: Controls, each of which is named for its lesson.
_LESSONS: dict[str, Lesson] = {lesson: lesson for lesson in get_args(Lesson) if lesson in CONTROL_METHODS}
#: Signals of the frozen model that a method decides by; the arm's own loss costs nothing extra.
_OBSERVES: dict[str, Signal] = {"entropy": "entropy", "reconstruction": "reconstruction"}


@dataclass(frozen=True)
class Spending:
    """What rules may spend, and what they know beforehand.

    Attributes:
        budget: mean cost per chunk, in multiples of SKIP.
        costs: of the four actions, in the unit of the budget.
        rules: their settings.
        calibration: signals of training streams; ``None`` where no method needs it.
    """

    budget: float
    costs: tuple[float, ...]
    rules: RulesConfig
    calibration: Calibration | None = None


def protocol_of(method: str) -> Protocol:
    """The protocol of a method; ``score_first`` unless the method is named for another."""
    if method == "in_chunk":
        return "in_chunk"
    if method == "transductive":
        return "transductive"
    return "score_first"


def lesson_of(method: str) -> Lesson:
    """What the updates of a method learn from."""
    return _LESSONS.get(method, "chunk")


def is_oracle(method: str) -> bool:
    """Whether a method looks at what no policy may see, so that it is a search and a replay."""
    return split_method(method)[0] in ORACLE_METHODS


def policy_for(method: str, spending: Spending) -> Policy:
    """The policy of a method that is not an oracle."""
    name, budget = budget_of(method, spending.budget)
    return policy_of(
        name, budget=budget, costs=spending.costs, calibration=spending.calibration, rules=spending.rules
    )


def arm_of(
    method: str, programs: ModulePrograms, spending: Spending, seed: int, policy: Policy | None = None
) -> Arm:
    """The arm of a method; an oracle's ``policy`` is the replay of what it found."""
    return Arm(
        method,
        programs,
        policy_for(method, spending) if policy is None else policy,
        protocol_of(method),
        seed,
        lesson_of(method),
        _OBSERVES.get(split_method(method)[0]),
    )
