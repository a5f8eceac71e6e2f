"""Sentences of the guide on rules: whether they beat random decisions and fixed schedules, over budgets, and on what signals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ponderttt.names import CALIBRATED_METHODS, LEARNED_METHODS, split_method
from ponderttt.reporting.guide.update_statements import delta, labels_of
from ponderttt.reporting.numbers.methods import ORACLES
from ponderttt.reporting.numbers.rows import FrontierRow, SignalRow, TableRow
from ponderttt.reporting.numbers.signals import strongest

#: Column of the difference, what a rule is compared with.
REFERENCES = (
    ("delta_vs_random", "random decisions of the same budget"),
    ("delta_vs_fixed_seconds", "fixed schedules at equal measured seconds"),
    ("delta_vs_fixed_flops", "fixed schedules at equal counted FLOPs"),
)
#: Policies by area and measures of cost that the guide shows.
_MEASURES = (("flops", "counted FLOPs"), ("seconds", "measured seconds"))
_TOP = 5


def rules_of(rows: Sequence[TableRow], fast_weights: str) -> list[TableRow]:
    """The rules that follow a signal and the learned policies, at every budget."""
    return [
        row
        for row in rows
        if row.fast_weights == fast_weights
        and row.protocol == "score_first"
        and split_method(row.method)[0] in (*CALIBRATED_METHODS, *LEARNED_METHODS)
    ]


class Compared(NamedTuple):
    """A difference to a reference that has an interval."""

    name: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"`{self.name}` {delta(self.value, self.low, self.high)}"


def _cells(row: Any, name: str) -> tuple[float | None, float | None, float | None]:
    return getattr(row, name), getattr(row, f"{name}_ci_low"), getattr(row, f"{name}_ci_high")


def compared(rows: Sequence[Any], name: str, names: str) -> list[Compared]:
    """The known differences of ``rows`` in column ``name``, lowest first; ``names`` is the column of their names."""
    known = []
    for row in rows:
        value, low, high = _cells(row, name)
        if value is not None and low is not None and high is not None:
            known.append(Compared(getattr(row, names), value, low, high))
    return sorted(known, key=lambda one: one.value)


def claim(rows: Sequence[Any], name: str, reference: str, confidence: float, *, names: str = "method") -> str:
    """Which of ``rows`` are clearly better than a reference, by how much, or plainly that none is.

    Args:
        rows: rules of the table, or one row for each policy of the frontier.
        name: column of the difference.
        reference: what it is a difference to, in words.
        confidence: of the intervals.
        names: column of what a row is called.
    """
    known = compared(rows, name, names)
    if not known:
        return f"Against {reference}: not known, since no comparison has an interval."
    better, worse = [one for one in known if one.high < 0], [one for one in known if one.low > 0]
    chance = f"about {len(known) * (1 - confidence) / 2:.1f} would by chance"
    if better:
        sentence = (
            f"**Better than {reference}** ({len(better)} of {len(known)} comparisons; {chance}): "
            f"{', '.join(map(str, better))} nats per token."
        )
    else:
        sentence = (
            f"**Nothing is better than {reference}** (0 of {len(known)} comparisons); nearest is {known[0]} "
            "nats per token."
        )
    return sentence + (f" Clearly worse: {', '.join(map(str, worse))}." if worse else "")


def rule_section(rows: Sequence[TableRow], fast_weights: str, confidence: float) -> Iterator[str]:
    """Rules of one kind of fast weights; nothing where the grid has none."""
    rules = rules_of(rows, fast_weights)
    if not rules:
        return
    yield f"#### {fast_weights}: rules against random decisions and fixed schedules"
    yield ""
    for name, reference in REFERENCES:
        yield f"* {claim(rules, name, reference, confidence)}"
    learned = [row for row in rules if split_method(row.method)[0] in LEARNED_METHODS]
    if learned:
        yield (
            "* Learned policies. "
            f"{claim(learned, 'delta_vs_rule', 'the best rule of the same budget', confidence)}"
        )
    oracles = [
        row
        for row in rows
        if row.fast_weights == fast_weights
        and split_method(row.method)[0] in ORACLES
        and row.delta_vs_random is not None
    ]
    if oracles:
        headroom = ", ".join(f"`{row.method}` {delta(*_cells(row, 'delta_vs_random'))}" for row in oracles)
        yield f"* What a decision could win, against random decisions of the same budget: {headroom}."
    missed = [row for row in rules if row.budget_error is not None and abs(row.budget_error) > 0.05]
    errors = [abs(row.budget_error) for row in rules if row.budget_error is not None]
    if errors:
        yield f"* Largest miss of a budget: {100 * max(errors):.1f} %" + (
            f"; **more than 5 %**: {', '.join(f'`{row.method}`' for row in missed)}." if missed else "."
        )
    yield ""
    yield "| rule | loss | minus random | minus fixed, equal seconds | minus fixed, equal FLOPs | recovery vs `skip` | vs random | SKIP / 1 / 2 / 4 | rank gap |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rules:
        shares = " / ".join(
            f"{share:.2f}"
            for share in (row.share_skip, row.share_update_1, row.share_update_2, row.share_update_4)
        )
        differences = " | ".join(delta(*_cells(row, name)) for name, _ in REFERENCES)
        yield (
            f"| `{row.method}` | {row.loss:.4f} | {differences} | {_percent(row.recovery_vs_skip)} | "
            f"{_percent(row.recovery_vs_random)} | {shares} | {'–' if row.rank_gap is None else f'{row.rank_gap:.2f}'} |"
        )
    yield ""


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def area_section(rows: Sequence[FrontierRow], fast_weights: str, confidence: float) -> Iterator[str]:
    """Areas under the frontiers of one kind of fast weights; nothing where no policy has two costs."""
    for measure, words in _MEASURES:
        policies = {
            row.policy: row
            for row in rows
            if (row.fast_weights, row.cost_measure) == (fast_weights, measure) and row.area is not None
        }
        if len(policies) < 2:
            continue
        yield f"#### {fast_weights}: over budgets, against {words}"
        yield ""
        rules = [row for row in policies.values() if row.policy in (*CALIBRATED_METHODS, *LEARNED_METHODS)]
        if rules:
            yield f"* {claim(rules, 'area_vs_random', 'random decisions', confidence, names='policy')}"
            yield f"* {claim(rules, 'area_vs_fixed', 'fixed schedules', confidence, names='policy')}"
            yield ""
        unit = 1e9 if measure == "flops" else 1.0
        yield f"| policy | {'GFLOPs' if measure == 'flops' else 'seconds'} per chunk | mean loss | minus random | minus fixed |"
        yield "|---|---|---|---|---|"
        for row in policies.values():
            costs = f"{(row.range_low or 0.0) / unit:.6g} to {(row.range_high or 0.0) / unit:.6g}"
            yield (
                f"| {row.policy} | {costs} | {row.area:.4f} | {delta(*_cells(row, 'area_vs_random'))} | "
                f"{delta(*_cells(row, 'area_vs_fixed'))} |"
            )
        yield ""


def front_section(rows: Sequence[FrontierRow]) -> Iterator[str]:
    """The arms of one corpus and model that nothing cheaper beats."""
    yield "### Who is beaten by nobody that costs less"
    yield ""
    for measure, words in _MEASURES:
        front = sorted(
            (row for row in rows if row.cost_measure == measure and row.on_front), key=lambda row: row.cost
        )
        unit, name = (1e9, "GFLOPs") if measure == "flops" else (1.0, "s")
        arms = "; ".join(f"{_arm(row)} ({row.cost / unit:.3g} {name}, {row.loss:.4f})" for row in front)
        yield f"* By {words} per chunk and loss: {arms}."
    yield ""


def _arm(row: FrontierRow) -> str:
    return f"`{row.method}`" if row.fast_weights == "none" else f"{row.fast_weights} `{row.method}`"


def signal_section(rows: Sequence[SignalRow], fast_weights: str, confidence: float) -> Iterator[str]:
    """Which features predict the gain of an update of one kind of fast weights; nothing without an oracle."""
    mine = [row for row in rows if row.fast_weights == fast_weights]
    if not mine:
        return
    yield f"#### {fast_weights}: which signals predict the gain of an update"
    yield ""
    for action in ("UPDATE_1", "UPDATE_4"):
        ordered = strongest(mine, action)
        clear = [row for row in ordered if _leaves_out_zero(row)]
        chance = len(ordered) * (1 - confidence)
        shown = ", ".join(
            f"`{row.feature}` {_rho(row.rho, row.rho_ci_low, row.rho_ci_high)}, within streams "
            f"{_rho(row.rho_within, row.rho_within_ci_low, row.rho_within_ci_high)}"
            for row in clear[:_TOP]
        )
        yield (
            f"* {action}: of {len(ordered)} features, {len(clear)} have a rank correlation whose interval leaves out zero "
            f"(about {chance:.1f} would by chance){f'; strongest: {shown}' if clear else ''}."
        )
    yield ""


def _leaves_out_zero(row: SignalRow) -> bool:
    low, high = row.rho_ci_low, row.rho_ci_high
    return low is not None and high is not None and (low > 0 or high < 0)


def _rho(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.2f}" if low is None or high is None else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def in_short(rows: Sequence[TableRow], confidence: float) -> Iterator[str]:
    """One bullet for each kind of fast weights: the best arm, and whether rules are worth anything."""
    for fast_weights in labels_of(rows):
        rules = rules_of(rows, fast_weights)
        fixed = [
            row
            for row in rows
            if row.fast_weights == fast_weights
            and row.method in ("update_1", "update_2", "update_4", "schedule")
            and row.delta_vs_skip is not None
        ]
        if fixed:
            best = min(fixed, key=lambda row: row.loss)
            change = delta(best.delta_vs_skip, best.delta_ci_low, best.delta_ci_high)
            yield f"* **{fast_weights}**: best fixed updates `{best.method}`, {change} nats per token against 0 updates."
        else:
            yield f"* **{fast_weights}**"
        if rules:
            for name, reference in REFERENCES:
                yield f"  * {_shortly(rules, name, reference, confidence)}"


def _shortly(rules: Sequence[TableRow], name: str, reference: str, confidence: float) -> str:
    known = compared(rules, name, "method")
    if not known:
        return f"Against {reference}: not known."
    better = [one for one in known if one.high < 0]
    said = f"{len(better)} of {len(known)} rules and budgets are better" if better else "no rule is better"
    return (
        f"Against {reference}, {said} (about {len(known) * (1 - confidence) / 2:.1f} would by chance); "
        f"{'the best' if better else 'the nearest'} is {(better or known)[0]}."
    )
