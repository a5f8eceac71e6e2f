"""What an arm is compared with: its control, random decisions and oracle of its budget, fixed schedules at its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ponderttt.names import (
    BUDGETED_METHODS,
    CALIBRATED_METHODS,
    CONTROL_METHODS,
    LEARNED_METHODS,
    split_method,
)
from ponderttt.reporting.numbers.arms import Arm, mean_loss
from ponderttt.reporting.numbers.comparisons import COST_TOLERANCE, Recovery, find, mean_cost, recovery
from ponderttt.reporting.numbers.methods import FIXED_SCHEDULES, ORACLES

#: Costs within this share are the same cost: FLOPs are counted, but a clock that reads the same work twice is off by as
#: much, so that an arm would be compared with a cheaper one by chance.
RESOLUTION = {"flops": 0.0, "seconds": 0.01}


@dataclass(frozen=True)
class References:
    """``None`` where the grid has no such arm, or the comparison makes no sense."""

    #: The trained adapter with 0 updates; of the backbone alone, the plain backbone.
    control: Arm | None
    plain: Arm | None
    context_1: Arm | None
    #: Random decisions of the same budget, or of the same cost where the arm has no budget.
    random: Arm | None
    #: The best oracle of the same budget, or of the nearest cost where the arm has no budget.
    oracle: Arm | None
    #: UPDATE_1 that learns from the right thing, for one that learns from the wrong one.
    update_1: Arm | None
    #: Fixed schedules at the arm's own counted FLOPs and measured seconds.
    fixed_flops: Arm | None
    fixed_seconds: Arm | None
    #: For a learned policy the rule of lowest loss at the same budget; chosen on these very streams, so hard to beat.
    rule: Arm | None


def control_of(fast_weights: str) -> tuple[str, str]:
    """Fast weights and method of the control: equal training, no update."""
    return ("none", "plain") if fast_weights == "none" else (fast_weights, "skip")


def references_of(arm: Arm, arms: Sequence[Arm]) -> References:
    """Every reference of ``arm`` among ``arms``; only arms of one model, corpus and protocol share a comparison."""
    base, _ = split_method(arm.key.method)
    allocates = (
        arm.key.fast_weights != "none"
        and arm.key.protocol == "score_first"
        and base not in ("skip", *CONTROL_METHODS)
    )
    decides = allocates and base not in FIXED_SCHEDULES
    return References(
        control=find(arms, arm, *control_of(arm.key.fast_weights)),
        plain=find(arms, arm, "none", "plain"),
        context_1=find(arms, arm, "none", "context_1"),
        random=_of_same_budget(arm, arms, ("random",)) if allocates and base != "random" else None,
        oracle=_of_same_budget(arm, arms, ORACLES) if allocates and base not in ORACLES else None,
        update_1=find(arms, arm, arm.key.fast_weights, "update_1") if base in CONTROL_METHODS else None,
        fixed_flops=fixed_at_cost_of(arm, arms, "flops") if decides else None,
        fixed_seconds=fixed_at_cost_of(arm, arms, "seconds") if decides else None,
        rule=_best_rule(arm, arms) if base in LEARNED_METHODS else None,
    )


def _best_rule(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The rule that follows a signal with the lowest loss among those held to the budget of a learned policy."""
    base, suffix = split_method(arm.key.method)
    if base not in BUDGETED_METHODS:
        return None
    found = [find(arms, arm, arm.key.fast_weights, rule + suffix) for rule in CALIBRATED_METHODS]
    return min((rule for rule in found if rule is not None), key=mean_loss, default=None)


def _of_same_budget(arm: Arm, arms: Sequence[Arm], bases: Sequence[str]) -> Arm | None:
    """The first of ``bases`` that there is at the arm's budget; without a budget, that of the nearest nominal cost."""
    base, suffix = split_method(arm.key.method)
    for wanted in bases:
        if base in BUDGETED_METHODS:
            found = find(arms, arm, arm.key.fast_weights, wanted + suffix)
        else:
            same = [
                other
                for other in arms
                if split_method(other.key.method)[0] == wanted
                and other.key._replace(method=arm.key.method) == arm.key
            ]
            found = min(same, key=lambda other: abs(mean_cost(other) - mean_cost(arm)), default=None)
        if found:
            return found
    return None


def costs_the_same(arm: Arm, other: Arm) -> bool:
    """Whether the mean nominal costs are within :data:`~ponderttt.reporting.numbers.comparisons.COST_TOLERANCE`."""
    return abs(mean_cost(other) - mean_cost(arm)) <= COST_TOLERANCE * mean_cost(arm)


def fixed_at_cost_of(arm: Arm, arms: Sequence[Arm], measure: str) -> Arm | None:
    """The fixed schedules of the same fast weights at the arm's mean cost, as an arm of their own.

    Some streams given one fixed schedule and others another have, on average, a cost and a loss on the line between
    the two: so fixed schedules reach every cost between theirs.  Of all pairs around the arm's cost, and all single
    ones that cost no more, the lowest loss is taken.  What can not be told from the arm's cost is no more.

    Args:
        arm: whose cost is to be met.
        arms: where fixed schedules are looked for.
        measure: ``flops`` or ``seconds``.

    Returns:
        The mixture, named in its key; ``None`` without fixed schedules, or if the cheapest is dearer than the arm by
        more than the tolerance.
    """
    cost = float(arm.measures[measure].mean())
    fixed = [
        other
        for method in FIXED_SCHEDULES
        if (other := find(arms, arm, arm.key.fast_weights, method)) and set(arm.seeds) <= set(other.seeds)
    ]
    costs = [float(other.measures[measure].mean()) for other in fixed]
    candidates = []
    for first, low in zip(fixed, costs, strict=True):
        if low <= cost * (1 + RESOLUTION[measure]):
            candidates.append(_mix(first, first, 1.0, arm))
        for second, high in zip(fixed, costs, strict=True):
            if low < cost < high:
                candidates.append(_mix(first, second, (high - cost) / (high - low), arm))
    if not candidates and costs and min(costs) <= cost * (1 + COST_TOLERANCE):
        cheapest = fixed[int(np.argmin(costs))]
        candidates.append(_mix(cheapest, cheapest, 1.0, arm))
    return min(candidates, key=mean_loss, default=None)


def _mix(first: Arm, second: Arm, share: float, like: Arm) -> Arm:
    if first is second:
        return first
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
    """Recovery over the control and over random decisions; controls and oracles have none, by definition."""
    nothing = Recovery(None, None)
    base, _ = split_method(arm.key.method)
    if (
        arm.key.fast_weights == "none"
        or arm.key.protocol != "score_first"
        or base in ("skip", *ORACLES, *CONTROL_METHODS)
    ):
        return nothing, nothing
    from_control = recovery(arm, references.control, references.oracle, matched=False)
    if base == "random":
        return from_control, nothing
    return from_control, recovery(arm, references.random, references.oracle, matched=True)
