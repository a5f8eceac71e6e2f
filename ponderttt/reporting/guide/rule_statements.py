"""Sentences of the guide on policies: against random decisions and fixed schedules, over budgets, and by their signals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from ponderttt.names import CALIBRATED_METHODS, LEARNED_METHODS
from ponderttt.reporting.guide.claims import ClaimRule, shown
from ponderttt.reporting.guide.update_statements import labels_of
from ponderttt.reporting.numbers.columns import Estimate, rows_of
from ponderttt.reporting.numbers.rows import FrontierRow, SignalRow, TableRow
from ponderttt.reporting.numbers.signals import strongest

#: Column of a difference → its reference.
REFERENCES = {
    "delta_vs_random": "random decisions with the same budget",
    "delta_vs_fixed_seconds": "fixed schedules at equal measured seconds",
    "delta_vs_fixed_flops": "fixed schedules at equal counted FLOPs",
}
#: Measure of cost → how to call it, its unit, and the size of that unit.
_MEASURES = {"flops": ("counted FLOPs", "GFLOPs", 1e9), "seconds": ("measured seconds", "s", 1.0)}
_TOP = 5


def policies_of(rows: Sequence[TableRow], fast_weights: str) -> list[TableRow]:
    """Return the signal rules and the learned policies, at every budget."""
    return [
        row
        for row in rows
        if row.fast_weights == fast_weights
        and row.protocol == "score_first"
        and (row.name.is_calibrated or row.name.is_learned)
    ]


class Compared(NamedTuple):
    """A policy and its difference to a reference, with an interval."""

    name: str
    difference: Estimate

    def __str__(self) -> str:
        return f"`{self.name}` {shown(self.difference)}"


def compared(rows: Sequence[TableRow] | Sequence[FrontierRow], column: str) -> list[Compared]:
    """Return the differences in a column that have an interval, lowest first."""
    found = [
        Compared(row.policy if isinstance(row, FrontierRow) else row.method, getattr(row, column))
        for row in rows
    ]
    known = [one for one in found if one.difference and one.difference.low is not None]
    return sorted(known, key=lambda one: one.difference.value)


def claim(
    rows: Sequence[TableRow] | Sequence[FrontierRow], column: str, reference: str, rule: ClaimRule
) -> str:
    """Return a sentence that names the policies that are clearly better than a reference, or says that there are none.

    With too few streams it says so, and names the lowest difference.

    Args:
        rows: policies of the table, or one row for each policy of the frontier.
        column: column of the difference.
        reference: the reference in words.
        rule: what a difference needs to be clear.
    """
    known = compared(rows, column)
    if not known:
        return f"Against {reference}: unknown, since no comparison has an interval."
    if rule.too_few:
        return f"Against {reference}, the lowest difference is {known[0]} ({rule.too_few})."
    better = [one for one in known if rule.sign(one.difference) == -1]
    worse = [one for one in known if rule.sign(one.difference) == 1]
    if better:
        sentence = (
            f"**Better than {reference}** ({len(better)} of {len(known)} comparisons; {rule.by_chance(len(known))}): "
            f"{'; '.join(map(str, better))}."
        )
    else:
        sentence = f"**Nothing is clearly better than {reference}** (0 of {len(known)} comparisons). The lowest difference is {known[0]}."
    return sentence + (f" Clearly worse: {'; '.join(map(str, worse))}." if worse else "")


def policy_section(rows: Sequence[TableRow], fast_weights: str, rule: ClaimRule) -> Iterator[str]:
    """Yield lines on the policies of one kind of fast weights; nothing if the grid has none."""
    policies = policies_of(rows, fast_weights)
    if not policies:
        return
    yield f"#### {fast_weights}: policies against random decisions and fixed schedules"
    yield ""
    for column, reference in REFERENCES.items():
        yield f"* {claim(policies, column, reference, rule)}"
    learned = [row for row in policies if row.name.is_learned]
    if learned:
        best_rule = "the best rule with the same budget"
        yield f"* Learned policies. {claim(learned, 'delta_vs_rule', best_rule, rule)}"
    oracles = [
        f"`{row.method}` {shown(row.delta_vs_random)}"
        for row in rows
        if row.fast_weights == fast_weights and row.name.is_oracle and row.delta_vs_random
    ]
    if oracles:
        yield f"* Headroom (oracles against random decisions with the same budget): {'; '.join(oracles)}."
    errors = {row.method: abs(row.budget_error) for row in policies if row.budget_error is not None}
    if errors:
        missed = [f"`{method}`" for method, error in errors.items() if error > 0.05]
        yield f"* Largest deviation from a budget: {100 * max(errors.values()):.1f} %" + (
            f"; **more than 5 %**: {', '.join(missed)}." if missed else "."
        )
    yield ""
    yield (
        f"| method | `loss` | {' | '.join(f'`{column}`' for column in REFERENCES)} | `recovery_vs_skip` | "
        "`recovery_vs_random` | shares of SKIP / 1 / 2 / 4 | `rank_gap` |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in policies:
        shares = (row.share_skip, row.share_update_1, row.share_update_2, row.share_update_4)
        differences = " | ".join(shown(getattr(row, column)) for column in REFERENCES)
        yield (
            f"| `{row.method}` | {row.loss:.4f} | {differences} | {shown(row.recovery_vs_skip, '.2f')} | "
            f"{shown(row.recovery_vs_random, '.2f')} | {' / '.join(f'{share:.2f}' for share in shares)} | "
            f"{'–' if row.rank_gap is None else f'{row.rank_gap:.2f}'} |"
        )
    yield ""


def area_section(frontier: pd.DataFrame, fast_weights: str, rule: ClaimRule) -> Iterator[str]:
    """Yield the areas under the frontiers of one kind of fast weights; nothing if no policy has two costs."""
    known = frontier[(frontier.fast_weights == fast_weights) & frontier.area.notna()]
    for measure, (words, unit, size) in _MEASURES.items():
        rows = rows_of(FrontierRow, known[known.cost_measure == measure].drop_duplicates("policy"))
        if len(rows) < 2:
            continue
        yield f"#### {fast_weights}: mean loss over budgets, against {words}"
        yield ""
        policies = [row for row in rows if row.policy in (*CALIBRATED_METHODS, *LEARNED_METHODS)]
        if policies:
            yield f"* {claim(policies, 'area_vs_random', 'random decisions', rule)}"
            yield f"* {claim(policies, 'area_vs_fixed', 'fixed schedules', rule)}"
            yield ""
        yield f"| policy | {unit} per chunk | `area` | `area_vs_random` | `area_vs_fixed` |"
        yield "|---|---|---|---|---|"
        for row in rows:
            costs = f"{(row.range_low or 0.0) / size:.6g} to {(row.range_high or 0.0) / size:.6g}"
            yield (
                f"| {row.policy} | {costs} | {shown(row.area, '.4f')} | {shown(row.area_vs_random)} | "
                f"{shown(row.area_vs_fixed)} |"
            )
        yield ""


def front_section(frontier: pd.DataFrame) -> Iterator[str]:
    """Yield the Pareto fronts of one corpus and model."""
    yield "### Pareto front: loss against cost"
    yield ""
    for measure, (words, unit, size) in _MEASURES.items():
        front = frontier[(frontier.cost_measure == measure) & frontier.on_front].sort_values(
            "cost", kind="stable"
        )
        arms = "; ".join(
            f"{_label(row)} ({row.cost / size:.3g} {unit}, {row.loss:.4f})"
            for row in rows_of(FrontierRow, front)
        )
        yield f"* Loss and {words} per chunk: {arms}."
    yield ""


def _label(row: FrontierRow) -> str:
    return f"`{row.method}`" if row.fast_weights == "none" else f"{row.fast_weights} `{row.method}`"


def signal_section(signals: pd.DataFrame, fast_weights: str, rule: ClaimRule) -> Iterator[str]:
    """Yield the features that predict the gain of an update of one kind of fast weights; nothing without an oracle."""
    mine = signals[signals.fast_weights == fast_weights]
    if mine.empty:
        return
    yield f"#### {fast_weights}: signals that predict the gain of an update"
    yield ""
    if rule.too_few:
        yield f"{rule.too_few}."
        yield ""
        return
    for action in ("UPDATE_1", "UPDATE_4"):
        ordered = rows_of(SignalRow, strongest(mine, action))
        clear = [row for row in ordered if rule.sign(row.rho)]
        top = ", ".join(
            f"`{row.feature}` {shown(row.rho, '+.2f')} (within streams {shown(row.rho_within, '+.2f')})"
            for row in clear[:_TOP]
        )
        yield (
            f"* {action}: the rank correlation of {len(clear)} of {len(ordered)} features has an interval that excludes zero "
            f"(about {len(ordered) * (1 - rule.confidence):.1f} expected by chance){f'. Strongest: {top}' if clear else ''}."
        )
    yield ""


def in_short(rows: Sequence[TableRow], rule: ClaimRule) -> Iterator[str]:
    """Yield, for each kind of fast weights, its best fixed schedule and whether policies are better than references."""
    if rule.too_few:
        yield f"{rule.too_few}. The numbers below describe these streams only."
        return
    for fast_weights in labels_of(rows):
        policies = policies_of(rows, fast_weights)
        fixed = [
            row
            for row in rows
            if row.fast_weights == fast_weights
            and row.method in ("update_1", "update_2", "update_4", "schedule")
            and row.delta_vs_skip
        ]
        if fixed:
            best = min(fixed, key=lambda row: row.loss)
            yield (
                f"* **{fast_weights}**: the best fixed schedule is `{best.method}`, {shown(best.delta_vs_skip)} against "
                "0 updates."
            )
        else:
            yield f"* **{fast_weights}**"
        if policies:
            for column, reference in REFERENCES.items():
                yield f"  * {_in_short(policies, column, reference, rule)}"


def _in_short(policies: Sequence[TableRow], column: str, reference: str, rule: ClaimRule) -> str:
    known = compared(policies, column)
    if not known:
        return f"Against {reference}: unknown."
    better = [one for one in known if rule.sign(one.difference) == -1]
    said = (
        f"{len(better)} of {len(known)} policies and budgets are clearly better"
        if better
        else "no policy is clearly better"
    )
    return (
        f"Against {reference}, {said} ({rule.by_chance(len(known))}); "
        f"{'the best of them' if better else 'the lowest difference'} is {(better or known)[0]}."
    )
