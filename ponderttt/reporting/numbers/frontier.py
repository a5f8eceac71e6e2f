"""``results/frontier.csv``: what each policy reaches at each budget, the area under it, and who is beaten by nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ponderttt.names import CONTROL_METHODS, split_method, without_budget
from ponderttt.reporting.numbers.arms import Arm, ArmKey, mean_loss
from ponderttt.reporting.numbers.methods import FIXED_SCHEDULES, ORACLES
from ponderttt.reporting.numbers.rows import FrontierRow
from ponderttt.reporting.numbers.statistics import (
    Envelope,
    StreamResamples,
    lower_envelope,
    percentile_interval,
)

#: Name in the file → measure of the records.
COST_MEASURES = {"nominal": "cost_nominal", "flops": "flops", "seconds": "seconds"}
#: Policies that areas are compared with.
RANDOM, FIXED = "random", "fixed"


def policy_of_method(method: str) -> str:
    """The policy whose budgets (or whose actions, or whose context) make one line of the frontier."""
    base, _ = split_method(method)
    if base in FIXED_SCHEDULES:
        return FIXED
    return "context" if base == "plain" or base.startswith("context_") else without_budget(method)


class Area(NamedTuple):
    """Mean loss of one policy over a range of costs: of the streams, and of each resample of them."""

    value: float
    samples: Float[np.ndarray, " B"]

    def minus(self, other: Area) -> Area:
        """The paired difference."""
        return Area(self.value - other.value, self.samples - other.samples)


class Span(NamedTuple):
    """The costs of a policy's points: the smallest, the largest, and how many different ones."""

    low: float
    high: float
    costs: int

    @classmethod
    def of(cls, points: Sequence[Arm], measure: str) -> Span:
        """The span of arms."""
        costs = {float(arm.measures[measure].mean()) for arm in points}
        return cls(min(costs), max(costs), len(costs))


class PolicyAreas(NamedTuple):
    """The areas of a policy and of those that it is compared with, over one range of costs."""

    low: float
    high: float
    #: By policy; its own among them.
    area: dict[str, Area]


def frontier_rows(
    arms: Sequence[Arm], resamples: Mapping[tuple[str, int], StreamResamples], confidence: float
) -> list[FrontierRow]:
    """Every ``score_first`` arm at every measure of cost, in the order of ``arms``.

    Args:
        arms: of the whole table.
        resamples: (corpus, number of streams) → the resamples that the table uses for it.
        confidence: of the intervals.
    """
    rows = []
    arms = [arm for arm in arms if arm.key.protocol == "score_first"]
    for group in dict.fromkeys((arm.key.corpus, arm.key.model) for arm in arms):
        mine = [arm for arm in arms if (arm.key.corpus, arm.key.model) == group]
        draws = resamples[group[0], len(mine[0].chunks.streams)]
        for name, measure in COST_MEASURES.items():
            front = pareto_front(mine, measure)
            for fast_weights in dict.fromkeys(arm.key.fast_weights for arm in mine):
                of_label = [arm for arm in mine if arm.key.fast_weights == fast_weights]
                rows += _rows_of_label(of_label, name, front, draws, confidence)
    return rows


def pareto_front(arms: Sequence[Arm], measure: str) -> set[ArmKey]:
    """The arms that no other arm beats in loss without costing more; see :class:`~ponderttt.reporting.numbers.rows.FrontierRow`."""
    places = sorted(
        (
            (float(arm.measures[measure].mean()), mean_loss(arm), arm.key)
            for arm in arms
            if _could_be_run(arm)
        ),
        key=lambda place: place[:2],
    )
    front, best = set(), np.inf
    for _, loss, key in places:
        if loss < best:
            front.add(key)
            best = loss
    return front


def _could_be_run(arm: Arm) -> bool:
    return split_method(arm.key.method)[0] not in (*ORACLES, *CONTROL_METHODS)


def _rows_of_label(
    arms: Sequence[Arm], name: str, front: set[ArmKey], resamples: StreamResamples, confidence: float
) -> list[FrontierRow]:
    measure = COST_MEASURES[name]
    policies: dict[str, list[Arm]] = {}
    for arm in arms:
        policies.setdefault(policy_of_method(arm.key.method), []).append(arm)
    spans = {policy: Span.of(points, measure) for policy, points in policies.items()}
    areas = {
        policy: _areas(policy, policies, spans, measure, resamples)
        for policy in policies
        if spans[policy].costs > 1
    }
    return [
        FrontierRow(
            model=arm.key.model,
            fast_weights=arm.key.fast_weights,
            policy=policy,
            corpus=arm.key.corpus,
            cost_measure=name,
            method=arm.key.method,
            budget=arm.budget.mean_cost if arm.budget else None,
            cost=float(arm.measures[measure].mean()),
            loss=mean_loss(arm),
            on_front=arm.key in front,
            n_costs=spans[policy].costs,
            **cells,
        )
        for policy, points in policies.items()
        for cells in (_area_cells(areas.get(policy), policy, confidence),)
        for arm in points
    ]


def envelope_of(points: Sequence[Arm], measure: str, resamples: StreamResamples | None = None) -> Envelope:
    """The lower envelope of arms; with resamples, that of each of them, at the costs of the whole."""
    cost = np.array([arm.measures[measure].mean() for arm in points])
    if resamples is None:
        return lower_envelope(cost, np.array([mean_loss(arm) for arm in points]))
    tokens = points[0].chunks.per_stream(points[0].chunks.n_tokens.astype(np.float64))
    losses = [
        resamples.ratio(
            arm.chunks.per_stream(arm.measures["loss"].mean(axis=0) * arm.chunks.n_tokens), tokens
        )
        for arm in points
    ]
    return lower_envelope(cost, np.stack(losses, axis=-1))


def common_range(own: Span, others: Sequence[Span]) -> tuple[float, float]:
    """The costs that ``own`` and all ``others`` reach; where there are none, those of ``own``.

    A policy whose signal is dear may cost more at its smallest budget than another at its largest.  Then its own costs are
    the range, at which the cheaper policy has its best loss.
    """
    every = [own, *others]
    low, high = max(span.low for span in every), min(span.high for span in every)
    return (low, high) if low < high else (own.low, own.high)


def _areas(
    policy: str,
    policies: Mapping[str, Sequence[Arm]],
    spans: Mapping[str, Span],
    measure: str,
    resamples: StreamResamples,
) -> PolicyAreas:
    others = [name for name in (RANDOM, FIXED) if name in spans and name != policy and spans[name].costs > 1]
    low, high = common_range(spans[policy], [spans[name] for name in others])
    reached = [name for name in (policy, *others) if spans[name].low <= low]
    return PolicyAreas(
        low, high, {name: area_of(policies[name], measure, low, high, resamples) for name in reached}
    )


def area_of(points: Sequence[Arm], measure: str, low: float, high: float, resamples: StreamResamples) -> Area:
    """Mean loss under the envelope of ``points`` from cost ``low`` to ``high``; one stream has no resample."""
    value = envelope_of(points, measure).mean_between(low, high)
    if resamples.counts.shape[1] < 2:
        return Area(float(value), np.zeros(0))
    return Area(float(value), envelope_of(points, measure, resamples).mean_between(low, high))


def _area_cells(found: PolicyAreas | None, policy: str, confidence: float) -> dict[str, float | None]:
    cells: dict[str, float | None] = {
        "range_low": found.low if found else None,
        "range_high": found.high if found else None,
    }
    for name, other in (("area", None), ("area_vs_random", RANDOM), ("area_vs_fixed", FIXED)):
        area = found.area[policy] if found else None
        if area and found and other:
            area = area.minus(found.area[other]) if other in found.area and other != policy else None
        interval = percentile_interval(area.samples, confidence) if area else None
        cells |= {
            name: area.value if area else None,
            f"{name}_ci_low": interval.low if interval else None,
            f"{name}_ci_high": interval.high if interval else None,
        }
    return cells
