"""The methods of the table: which policy, protocol and lesson each name stands for.

A rule or an oracle spends the budget of the grid; ``entropy@1.5`` spends 1.5 instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from ponderttt.errors import PonderTTTError
from ponderttt.loop.arm import Arm, Protocol, Signal
from ponderttt.loop.controls import Lesson
from ponderttt.loop.programs import ModulePrograms
from ponderttt.names import CONTROL_METHODS, LEARNED_METHODS, MethodName
from ponderttt.policies.base import Policy
from ponderttt.policies.build import policy_of
from ponderttt.policies.calibration import Calibration
from ponderttt.policies.trained import Trained
from ponderttt.settings.rules import RulesConfig

#: The protocols that a method is named for.
_PROTOCOLS: dict[str, Protocol] = {"in_chunk": "in_chunk", "transductive": "transductive"}
#: Controls, each of which is named for its lesson.
_LESSONS: dict[str, Lesson] = {lesson: lesson for lesson in get_args(Lesson) if lesson in CONTROL_METHODS}
#: Signals of the frozen model that a method decides by; the arm's own loss costs nothing extra.
_OBSERVES: dict[str, Signal] = {
    "entropy": "entropy",
    "reconstruction": "reconstruction",
    **dict.fromkeys(LEARNED_METHODS, "features"),
}


@dataclass(frozen=True)
class Spending:
    """What rules may spend, and what they know beforehand.

    Attributes:
        budget: mean cost per chunk, in multiples of SKIP.
        costs: of the four actions, in the unit of the budget.
        rules: their settings.
        calibration: signals of training streams; ``None`` where no method needs it.
        learned: trained policies by :attr:`ponderttt.names.MethodName.trained_as`.
    """

    budget: float
    costs: tuple[float, ...]
    rules: RulesConfig
    calibration: Calibration | None = None
    learned: Mapping[MethodName, Trained] = field(default_factory=dict)


def protocol_of(method: MethodName) -> Protocol:
    """The protocol of a method; ``score_first`` unless the method is named for another."""
    return _PROTOCOLS.get(method.base, "score_first")


def policy_for(method: MethodName, spending: Spending) -> Policy:
    """The policy of a method that is not an oracle.

    Raises:
        PonderTTTError: a learned policy that was not trained, a rule without its calibration, a budget that cannot be met.
    """
    budget = method.budget or spending.budget
    if method.is_learned:
        if method.trained_as not in spending.learned:
            raise PonderTTTError(
                f"the method '{method}' is learned, and no policy was trained: train it first"
            )
        return spending.learned[method.trained_as].policy(budget, spending.costs)
    return policy_of(
        method.base,
        budget=budget,
        costs=spending.costs,
        calibration=spending.calibration,
        rules=spending.rules,
    )


def arm_of(
    method: MethodName,
    programs: ModulePrograms,
    spending: Spending,
    seed: int,
    policy: Policy | None = None,
) -> Arm:
    """The arm of a method; an oracle's ``policy`` is the replay of what it found."""
    return Arm(
        str(method),
        programs,
        policy_for(method, spending) if policy is None else policy,
        protocol_of(method),
        seed,
        _LESSONS.get(method.base, "chunk"),
        _OBSERVES.get(method.base),
    )
