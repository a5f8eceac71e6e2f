"""What the exact references of ``references.csv`` say of policies, and what the controls say of declared comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ponderttt.names import CONTROL_METHODS
from ponderttt.reporting.guide.claims import ClaimRule, shown
from ponderttt.reporting.numbers.rows import ConfirmatoryRow, ReferenceRow, TableRow, find_row

_MEANINGS = {
    "random": "mean over all sequences of the budget",
    "constant_rank": "a rank of 0.5 at every chunk, so no signal",
    "best_schedule": "for each stream, the sequence that is best on the others",
    "own_elsewhere": "the policy's own sequences on other streams",
    "oracle": "the best sequence of each stream",
}


def reference_section(
    references: Sequence[ReferenceRow], fast_weights: str, rule: ClaimRule
) -> Iterator[str]:
    """Yield policies beside the exact references at their budgets; nothing for fast weights without any."""
    rows = [row for row in references if row.fast_weights == fast_weights]
    present = [name for name in _MEANINGS if any(row.reference == name for row in rows)]
    if not rows:
        return
    yield f"#### {fast_weights}: policies against exact references"
    yield ""
    yield "Differences to references that are computed from the losses of all sequences of actions; below zero, the policy is better."
    yield ""
    yield from (f"* `{name}`: {_MEANINGS[name]}." for name in present)
    yield ""
    yield f"| method | budget | {' | '.join(f'`{name}`' for name in present)} |"
    yield f"|---|---|{'---|' * len(present)}"
    for method, budget in dict.fromkeys((row.method, row.budget) for row in rows):
        found = {row.reference: row for row in rows if (row.method, row.budget) == (method, budget)}
        cells = (
            f"{found[name].loss:.4f}: {shown(found[name].delta)}" if name in found else "–"
            for name in present
        )
        yield f"| `{method}` | {budget:g} | {' | '.join(cells)} |"
    yield ""


def control_of(
    row: ConfirmatoryRow, table: Sequence[TableRow], references: Sequence[ReferenceRow], rule: ClaimRule
) -> str:
    """Return what the controls say of a declared comparison.

    Args:
        row: the comparison.
        table: rows of the same model and corpus.
        references: exact references of the same model and corpus.
        rule: decides what is clear.
    """
    if rule.too_few:
        return rule.too_few
    if row.reference_method == "random":
        signal = next(
            (
                found
                for found in references
                if (found.fast_weights, found.method, found.reference)
                == (row.fast_weights, row.method, "constant_rank")
            ),
            None,
        )
        if signal is None:
            return "–"
        said = "less" if rule.sign(signal.delta) == -1 else "**as much**"
        return f"without a signal, the budget's mechanism gains {said} ({shown(signal.delta)})"
    if (row.reference_fast_weights, row.reference_method) != (row.fast_weights, "skip"):
        return "–"
    controls = [find_row(table, row.fast_weights, name, "score_first") for name in CONTROL_METHODS]
    known = [control for control in controls if control is not None]
    as_much = [f"`{control.method}`" for control in known if rule.sign(control.delta_vs_update_1) != 1]
    if as_much:
        return f"{' and '.join(as_much)} gain **as much**: not from what the chunk says"
    return "wrong lessons gain less" if known else "–"
