"""References of an arm: its baseline, random decisions and oracle of its budget, fixed schedules at its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ponderttt.names import CALIBRATED_METHODS, CONTROL_METHODS, MethodName
from ponderttt.reporting.numbers.arms import Arm
from ponderttt.reporting.numbers.comparisons import COST_TOLERANCE, Recovery, find, recovery
from ponderttt.reporting.numbers.exact import exact_references
from ponderttt.reporting.numbers.lookups import Reference
from ponderttt.reporting.numbers.methods import FIXED_SCHEDULES, ORACLES
from ponderttt.reporting.numbers.sequences import AllSequences, sequences_of

#: Costs within this share are equal.  FLOPs are counted.  A clock measures the same work with about 1 % difference, which
#: must not decide what an arm is compared with.
RESOLUTION = {"flops": 0.0, "seconds": 0.01}


@dataclass(frozen=True)
class References:
    """The arms that an arm is compared with; None if the grid has no such arm, or the comparison makes no sense."""

    #: The trained adapter with 0 updates; for the backbone alone, the plain backbone.
    baseline: Arm | None
    plain: Arm | None
    #: The backbone with its whole stream as context.
    full: Arm | None
    #: Random decisions of the same budget, or of the nearest cost if the arm has no budget.
    random: Arm | None
    #: The best sequences of the same budget, or of the nearest cost if the arm has no budget; else the exhaustive oracle.  The
    #: greedy oracle is no bound.
    oracle: Arm | None
    #: UPDATE_1, for a control with a wrong lesson.
    update_1: Arm | None
    #: Fixed schedules at the arm's own counted FLOPs and measured seconds.
    fixed_flops: Arm | None
    fixed_seconds: Arm | None
    #: The rule with the lowest loss at the same budget, for a learned policy; chosen on these streams, so hard to beat.
    rule: Arm | None
    #: References from the losses of all sequences, by name; empty without these, see :mod:`.exact`.
    exact: dict[str, Reference]


def baseline_of(fast_weights: str) -> tuple[str, str]:
    """Return fast weights and method of the baseline: equal training, no update."""
    return ("none", "plain") if fast_weights == "none" else (fast_weights, "skip")


def references_of(arm: Arm, arms: Sequence[Arm], sets: Sequence[AllSequences] = ()) -> References:
    """Return every reference of ``arm``; arms of one model, corpus and protocol are comparable.

    Args:
        arm: the arm.
        arms: where to look for others.
        sets: losses of all sequences of actions, of the adapters that have them.
    """
    base, fast_weights = arm.name.base, arm.key.fast_weights
    allocates = (
        fast_weights != "none"
        and arm.key.protocol == "score_first"
        and base not in ("skip", *CONTROL_METHODS)
    )
    decides = allocates and base not in FIXED_SCHEDULES
    random = _of_same_budget(arm, arms, "random") if allocates else None
    exact = _exact(arm, random, sets) if allocates and not arm.name.is_oracle else {}
    oracle = _of_same_budget(arm, arms, "exhaustive_oracle") if allocates and not arm.name.is_oracle else None
    if "oracle" in exact:
        oracle = exact["oracle"].arm
    return References(
        baseline=find(arms, arm, *baseline_of(fast_weights)),
        plain=find(arms, arm, "none", "plain"),
        full=find(arms, arm, "none", "full"),
        random=None if base == "random" else random,
        oracle=oracle,
        update_1=find(arms, arm, fast_weights, "update_1") if base in CONTROL_METHODS else None,
        fixed_flops=fixed_at_cost_of(arm, arms, "flops") if decides else None,
        fixed_seconds=fixed_at_cost_of(arm, arms, "seconds") if decides else None,
        rule=_best_rule(arm, arms) if arm.name.is_learned else None,
        exact=exact,
    )


def _exact(arm: Arm, random: Arm | None, sets: Sequence[AllSequences]) -> dict[str, Reference]:
    """Return the exact references at the budget of an arm, or at that of the random decisions nearest in cost."""
    found, spends = sequences_of(arm, sets), arm if arm.budget else random
    if found is None or spends is None or spends.budget is None or spends.budget.unit != found.unit:
        return {}
    return exact_references(arm, found, spends.budget)


def _at_budget_of(arm: Arm, arms: Sequence[Arm], base: str) -> Arm | None:
    return find(arms, arm, arm.key.fast_weights, str(MethodName(base, budget=arm.name.budget)))


def _best_rule(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """Return the signal rule with the lowest loss at the budget of a learned policy."""
    if not arm.name.is_budgeted:
        return None
    found = [_at_budget_of(arm, arms, rule) for rule in CALIBRATED_METHODS]
    return min((rule for rule in found if rule), key=lambda rule: rule.mean_loss, default=None)


def _of_same_budget(arm: Arm, arms: Sequence[Arm], wanted: str) -> Arm | None:
    """Return a method at the arm's budget or, if it has none, at the nearest nominal cost."""
    if arm.name.is_budgeted:
        return _at_budget_of(arm, arms, wanted)
    same = [
        other
        for other in arms
        if other.name.base == wanted and other.key._replace(method=arm.key.method) == arm.key
    ]
    return min(same, key=lambda other: abs(other.mean_cost - arm.mean_cost), default=None)


def costs_the_same(arm: Arm, other: Arm) -> bool:
    """Return whether mean nominal costs differ by at most :data:`~ponderttt.reporting.numbers.comparisons.COST_TOLERANCE`."""
    return abs(other.mean_cost - arm.mean_cost) <= COST_TOLERANCE * arm.mean_cost


def fixed_at_cost_of(arm: Arm, arms: Sequence[Arm], measure: str) -> Arm | None:
    """Return the fixed schedules of the same fast weights at the arm's mean cost, as one arm.

    One schedule on some streams and another on the rest have, on average, a cost and a loss on the line between the two.
    So fixed schedules reach every cost between theirs.  Of all pairs around the arm's cost, and all single schedules that
    cost no more, this is the one with the lowest loss.  Costs within :data:`RESOLUTION` count as equal.

    Args:
        arm: the arm whose cost is to be met.
        arms: where to look for fixed schedules.
        measure: ``flops`` or ``seconds``.

    Returns:
        The mixture, named in its key; None without fixed schedules, or if the cheapest costs more than the arm by more
        than the tolerance.
    """
    cost = arm.mean(measure)
    fixed = [
        other
        for method in FIXED_SCHEDULES
        if (other := find(arms, arm, arm.key.fast_weights, method)) and set(arm.seeds) <= set(other.seeds)
    ]
    costs = [other.mean(measure) for other in fixed]
    candidates = []
    for first, low in zip(fixed, costs, strict=True):
        if low <= cost * (1 + RESOLUTION[measure]):
            candidates.append(first)
        for second, high in zip(fixed, costs, strict=True):
            if low < cost < high:
                candidates.append(_mix(first, second, (high - cost) / (high - low), arm))
    if not candidates and costs and min(costs) <= cost * (1 + COST_TOLERANCE):
        candidates.append(fixed[int(np.argmin(costs))])
    return min(candidates, key=lambda candidate: candidate.mean_loss, default=None)


def _mix(first: Arm, second: Arm, share: float, like: Arm) -> Arm:
    rows = [[other.seeds.index(seed) for seed in like.seeds] for other in (first, second)]
    name = f"{share:.0%} {first.key.method}, {1 - share:.0%} {second.key.method}"
    return replace(
        first,
        key=first.key._replace(method=name),
        seeds=like.seeds,
        measures={
            measure: share * first.measures[measure][rows[0]]
            + (1 - share) * second.measures[measure][rows[1]]
            for measure in ("loss", "cost_nominal", "flops", "seconds")
        },
    )


def recoveries(arm: Arm, references: References) -> tuple[Recovery, Recovery]:
    """Return the recovery over the baseline and over random decisions; SKIP, oracles and wrong lessons have none."""
    nothing = Recovery(None, None)
    base = arm.name.base
    if (
        arm.key.fast_weights == "none"
        or arm.key.protocol != "score_first"
        or base in ("skip", *ORACLES, *CONTROL_METHODS)
    ):
        return nothing, nothing
    over_baseline = recovery(arm, references.baseline, references.oracle, matched=False)
    if base == "random":
        return over_baseline, nothing
    return over_baseline, recovery(arm, references.random, references.oracle, matched=True)
