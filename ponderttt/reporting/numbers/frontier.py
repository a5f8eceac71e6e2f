"""``frontier.csv``: loss of each policy at each budget, the area under that line, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ponderttt.names import CONTROL_METHODS, MethodName
from ponderttt.reporting.numbers.arms import Arm
from ponderttt.reporting.numbers.columns import Estimate
from ponderttt.reporting.numbers.envelope import lower_envelope
from ponderttt.reporting.numbers.methods import FIXED_SCHEDULES
from ponderttt.reporting.numbers.rows import FrontierRow
from ponderttt.reporting.numbers.run_records import ArmKey
from ponderttt.reporting.numbers.sampling import StreamSampling
from ponderttt.reporting.numbers.statistics import RatioTerms

#: Name in the file → measure of the records.
COST_MEASURES = {"nominal": "cost_nominal", "flops": "flops", "seconds": "seconds"}
#: Policies that areas are compared with.
RANDOM, FIXED = "random", "fixed"


def policy_of_method(method: MethodName) -> str:
    """Return the policy whose budgets (or actions, or contexts) are one line of the frontier."""
    if method.base in FIXED_SCHEDULES:
        return FIXED
    return "context" if method.context is not None else str(method.without_budget)


class Span(NamedTuple):
    """The costs of a policy: the smallest, the largest, and the number of different ones."""

    low: float
    high: float
    costs: int

    @classmethod
    def of(cls, points: Sequence[Arm], measure: str) -> Span:
        """Return the span of the arms of a policy."""
        costs = {arm.mean(measure) for arm in points}
        return cls(min(costs), max(costs), len(costs))


class PolicyAreas(NamedTuple):
    """The areas of a policy and of its references over one range of costs; empty if it has a single cost."""

    low: float | None = None
    high: float | None = None
    own: Estimate | None = None
    vs_random: Estimate | None = None
    vs_fixed: Estimate | None = None


def frontier_rows(
    arms: Sequence[Arm], samplings: Mapping[tuple[str, int], StreamSampling]
) -> list[FrontierRow]:
    """Return a row for every ``score_first`` arm and measure of cost, in the order of ``arms``.

    Args:
        arms: all arms of the table.
        samplings: (corpus, number of streams) → the sampling of the table.
    """
    rows = []
    arms = [arm for arm in arms if arm.key.protocol == "score_first"]
    for group in dict.fromkeys((arm.key.corpus, arm.key.model) for arm in arms):
        mine = [arm for arm in arms if (arm.key.corpus, arm.key.model) == group]
        sampling = samplings[group[0], len(mine[0].chunks.streams)]
        for name, measure in COST_MEASURES.items():
            front = pareto_front(mine, measure)
            for fast_weights in dict.fromkeys(arm.key.fast_weights for arm in mine):
                with_label = [arm for arm in mine if arm.key.fast_weights == fast_weights]
                rows += _rows_of_label(with_label, name, front, sampling)
    return rows


def pareto_front(arms: Sequence[Arm], measure: str) -> set[ArmKey]:
    """Return the arms that no other arm beats in loss without costing more; oracles and wrong lessons do not count."""
    places = sorted(
        (arm.mean(measure), arm.mean_loss, arm.key)
        for arm in arms
        if not arm.name.is_oracle and arm.name.base not in CONTROL_METHODS
    )
    front, best = set(), np.inf
    for _, loss, key in places:
        if loss < best:
            front.add(key)
            best = loss
    return front


def _rows_of_label(
    arms: Sequence[Arm], name: str, front: set[ArmKey], sampling: StreamSampling
) -> list[FrontierRow]:
    measure = COST_MEASURES[name]
    policies: dict[str, list[Arm]] = {}
    for arm in arms:
        policies.setdefault(policy_of_method(arm.name), []).append(arm)
    spans = {policy: Span.of(points, measure) for policy, points in policies.items()}
    rows = []
    for policy, points in policies.items():
        areas = _areas(policy, policies, spans, measure, sampling)
        rows += [
            FrontierRow(
                model=arm.key.model,
                fast_weights=arm.key.fast_weights,
                policy=policy,
                corpus=arm.key.corpus,
                cost_measure=name,
                method=arm.key.method,
                budget=arm.budget.mean_cost if arm.budget else None,
                cost=arm.mean(measure),
                loss=arm.mean_loss,
                on_front=arm.key in front,
                n_costs=spans[policy].costs,
                range_low=areas.low,
                range_high=areas.high,
                area=areas.own,
                area_vs_random=areas.vs_random,
                area_vs_fixed=areas.vs_fixed,
            )
            for arm in points
        ]
    return rows


def common_range(own: Span, others: Sequence[Span]) -> tuple[float, float]:
    """Return the costs that ``own`` and all ``others`` reach; if there are none, those of ``own``.

    A policy with an expensive signal may cost more at its smallest budget than others at their largest.  Then its own
    costs are the range, over which the cheaper policies have their lowest loss.
    """
    every = [own, *others]
    low, high = max(span.low for span in every), min(span.high for span in every)
    return (low, high) if low < high else (own.low, own.high)


def _areas(
    policy: str,
    policies: Mapping[str, Sequence[Arm]],
    spans: Mapping[str, Span],
    measure: str,
    sampling: StreamSampling,
) -> PolicyAreas:
    if spans[policy].costs < 2:
        return PolicyAreas()
    others = [name for name in (RANDOM, FIXED) if name in spans and name != policy and spans[name].costs > 1]
    low, high = common_range(spans[policy], [spans[name] for name in others])
    own = area_of(policies[policy], measure, low, high)

    def versus(reference: str) -> Estimate | None:
        if reference not in others or spans[reference].low > low:
            return None
        other = area_of(policies[reference], measure, low, high)
        return sampling.tested(RatioTerms(own.numerator - other.numerator, own.denominator))

    return PolicyAreas(low, high, sampling.estimate(own), versus(RANDOM), versus(FIXED))


def area_of(points: Sequence[Arm], measure: str, low: float, high: float) -> RatioTerms:
    """Return the mean loss under the envelope of ``points`` from cost ``low`` to ``high``, as a ratio of sums over streams.

    The arms that the envelope consists of, and their weights, are those of all streams together.
    """
    envelope = lower_envelope(
        np.array([arm.mean(measure) for arm in points]), np.array([arm.mean_loss for arm in points])
    )
    nats = np.stack([arm.nats.mean(axis=0) for arm in points])
    return RatioTerms(envelope.weights_between(low, high) @ nats, points[0].tokens)
