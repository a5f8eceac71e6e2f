"""Sentences of the guide on controls: wrong lessons, and corpora in which nothing or everything can be learned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from ponderttt.names import CONTROL_METHODS
from ponderttt.reporting.guide.claims import ClaimRule, shown
from ponderttt.reporting.guide.update_statements import labels_of
from ponderttt.reporting.numbers.rows import TableRow, find_row

_LESSONS = {
    "shuffled": "learns from the chunk's hidden states and labels in unrelated orders; its gain comes from which tokens "
    "occur",
    "sign_flipped": "makes UPDATE_1 in the opposite direction; it must gain nothing",
    "other_stream": "learns from a chunk of another stream; its gain holds for any code",
}
#: Kind of a control corpus → what to expect.
_CORPORA = {
    "random_tokens": "Tokens are drawn uniformly, so none can be predicted. A model that is too confident loses more than "
    "the logarithm of its vocabulary size, and an update can lower that by making it less confident. A loss below the "
    "logarithm is a leak.",
    "repeated": "Each stream repeats its first chunks, so updates must help: every run, on every stream.",
}


def wrong_lessons(rows: Sequence[TableRow], rule: ClaimRule) -> Iterator[str]:
    """Yield UPDATE_1 beside the controls with a wrong lesson, for one corpus and model; nothing without such arms."""
    present = [name for name in CONTROL_METHODS if any(row.method == name for row in rows)]
    if not present:
        return
    yield "### Controls: wrong lessons"
    yield ""
    yield from (f"* `{name}` {_LESSONS[name]}." for name in present)
    yield ""
    yield f"| fast weights | `update_1` | {' | '.join(f'`{name}`' for name in present)} | worse than `update_1` |"
    yield f"|---|{'---|' * (len(present) + 2)}"
    for fast_weights in labels_of(rows):
        update = find_row(rows, fast_weights, "update_1", "score_first")
        controls = [find_row(rows, fast_weights, name, "score_first") for name in present]
        cells = " | ".join(_change(row) for row in controls)
        said = "; ".join(_finding(row, rule) for row in controls if row)
        if rule.too_few:
            said = rule.too_few
        elif update is None or rule.sign(update.delta_vs_skip) != -1:
            said = "`update_1` has no clear gain to lose"
        yield f"| {fast_weights} | {_change(update)} | {cells} | {said} |"
    yield ""
    yield (
        "Cells are `delta_vs_skip`. The last column has the paired difference to UPDATE_1, "
        "`delta_vs_update_1`: above zero, the lesson matters."
    )
    yield ""


def _finding(row: TableRow, rule: ClaimRule) -> str:
    worse = {1: "yes", -1: "**no, better**"}.get(rule.sign(row.delta_vs_update_1) or 0, "not clearly")
    if row.method == "sign_flipped" and rule.sign(row.delta_vs_skip) == -1:
        worse += ", **yet it gains**"
    return f"`{row.method}` {worse} ({shown(row.delta_vs_update_1)})"


def _change(row: TableRow | None) -> str:
    return shown(row.delta_vs_skip if row else None)


def control_corpora(
    rows: Sequence[TableRow], kinds: Mapping[str, str], vocabularies: Mapping[str, int]
) -> Iterator[str]:
    """Yield what updates do in the control corpora; nothing if the grid has none.

    Args:
        rows: rows of the table.
        kinds: control corpus → its kind.
        vocabularies: model → number of its tokens.
    """
    if not any(row.corpus in kinds for row in rows):
        return
    yield "## Control corpora"
    yield ""
    for corpus, kind in kinds.items():
        mine = [row for row in rows if row.corpus == corpus]
        if not mine:
            continue
        yield f"### {corpus}"
        yield ""
        yield f"{_CORPORA[kind]} {mine[0].n_streams} streams, {mine[0].n_chunks} chunks."
        yield ""
        yield "| model | fast weights | method | `loss` | `delta_vs_skip` | `loss` − ln(vocabulary) | as expected |"
        yield "|---|---|---|---|---|---|---|"
        for row in mine:
            if row.update_rate == 0:
                continue
            floor = math.log(vocabularies[row.model])
            if kind == "repeated":
                expected = row.p_improvement == 1.0
            else:
                expected = (row.ci.high if row.ci else row.loss) >= floor
            yield (
                f"| {row.model} | {row.fast_weights} | `{row.method}` | {row.loss:.4f} | {_change(row)} | "
                f"{row.loss - floor:+.4f} | {'yes' if expected else '**no**'} |"
            )
        yield ""
