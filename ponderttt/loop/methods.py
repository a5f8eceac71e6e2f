"""The methods of the table: the policy, protocol and lesson of each name."""

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

#: Methods that are named after their protocol.
_PROTOCOLS: dict[str, Protocol] = {"in_chunk": "in_chunk", "transductive": "transductive"}
#: Controls, which are named after their lessons.
_LESSONS: dict[str, Lesson] = {lesson: lesson for lesson in get_args(Lesson) if lesson in CONTROL_METHODS}
#: Signals that a method decides by; the arm's own loss costs nothing extra.
_OBSERVES: dict[str, Signal] = {
    "entropy": "entropy",
    "reconstruction": "reconstruction",
    **dict.fromkeys(LEARNED_METHODS, "features"),
}


@dataclass(frozen=True)
class Spending:
    """What policies may spend, and what they know from training streams.

    Attributes:
        budget: mean cost per chunk, in multiples of SKIP.
        per_decision: chunks per chunk that spends, by which budgets over a corpus grow: the last chunk of a stream does not
            spend.  A stream's own budget is spent to the unit without it.
        costs: costs of the four actions, in the unit of the budget.
        rules: settings of the rules.
        calibration: signals of training chunks; None if no method needs them.
        learned: trained policies by :attr:`ponderttt.names.MethodName.trained_as`.
    """

    budget: float
    costs: tuple[float, ...]
    rules: RulesConfig
    calibration: Calibration | None = None
    learned: Mapping[MethodName, Trained] = field(default_factory=dict)
    per_decision: float = 1.0

    def budget_of(self, method: MethodName) -> float:
        """Return the budget of a method: its own, or else that of all."""
        cheapest = min(self.costs)
        return cheapest + ((method.budget or self.budget) - cheapest) * self.per_decision


def protocol_of(method: MethodName) -> Protocol:
    """Return the protocol of a method: ``score_first`` unless the method is named after another."""
    return _PROTOCOLS.get(method.base, "score_first")


def policy_for(method: MethodName, spending: Spending) -> Policy:
    """Return the policy of a method that is not an oracle.

    Raises:
        PonderTTTError: a learned policy was not trained, a rule lacks its calibration, or the budget cannot be met.
    """
    budget = spending.budget_of(method)
    if method.is_learned:
        if method.trained_as not in spending.learned:
            raise PonderTTTError(
                f"the method '{method}' is learned, and its policy is missing: train it first"
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
    """Return the arm of a method; ``policy`` replays the actions that an oracle found."""
    return Arm(
        str(method),
        programs,
        policy_for(method, spending) if policy is None else policy,
        protocol_of(method),
        seed,
        _LESSONS.get(method.base, "chunk"),
        _OBSERVES.get(method.base),
    )
