"""Sentences of the guide on controls: what is left of a gain when the lesson, or the stream, is spoilt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from ponderttt.names import CONTROL_METHODS
from ponderttt.reporting.guide.update_statements import delta, labels_of, verdict
from ponderttt.reporting.numbers.rows import TableRow, find_row

_LESSONS = {
    "shuffled": "learns from the chunk's hidden states and labels in unrelated orders; what it still gains is which tokens "
    "occur",
    "sign_flipped": "makes UPDATE_1 in the opposite direction; it must gain nothing",
    "other_stream": "learns from another stream's chunk; what it still gains holds for any code",
}
#: Kind of a control corpus → what it is.
_CORPORA = {
    "random_tokens": "Tokens drawn uniformly: nothing tells the next one. A model that is sure of itself loses more than the "
    "logarithm of its vocabulary size, and an update can lower that by making it less sure; below the logarithm, "
    "something has leaked.",
    "repeated": "Each stream repeats its first chunks: what was learned comes again, so updates must help.",
}


def wrong_lessons(rows: Sequence[TableRow]) -> Iterator[str]:
    """UPDATE_1 beside updates that learn from the wrong thing, for one corpus and model; nothing without such arms."""
    present = [name for name in CONTROL_METHODS if any(row.method == name for row in rows)]
    if not present:
        return
    yield "### Learning from the wrong thing"
    yield ""
    yield from (f"* `{name}` {_LESSONS[name]}." for name in present)
    yield ""
    yield f"| fast weights | `update_1` | {' | '.join(f'`{name}`' for name in present)} | worse than `update_1` |"
    yield f"|---|{'---|' * (len(present) + 2)}"
    for fast_weights in labels_of(rows):
        update = find_row(rows, fast_weights, "update_1", "score_first")
        controls = {name: find_row(rows, fast_weights, name, "score_first") for name in present}
        cells = " | ".join(_change(row) for row in controls.values())
        said = "; ".join(_finding(row) for row in controls.values() if row)
        if update is None or verdict(update.delta_ci_low, update.delta_ci_high) != "helped":
            said = "`update_1` has no gain that could vanish"
        yield f"| {fast_weights} | {_change(update)} | {cells} | {said} |"
    yield ""
    yield (
        "Differences to the trained adapter with 0 updates, nats per token; in the last column, to UPDATE_1 that learns from "
        "the right thing, paired: above zero, the lesson matters."
    )
    yield ""


def _finding(row: TableRow) -> str:
    low, high = row.delta_vs_update_1_ci_low, row.delta_vs_update_1_ci_high
    worse = {"did harm": "yes", "helped": "**no, better**"}.get(verdict(low, high), "not clearly")
    if row.method == "sign_flipped" and verdict(row.delta_ci_low, row.delta_ci_high) == "helped":
        worse += ", **yet it gains**"
    return f"`{row.method}` {worse} ({delta(row.delta_vs_update_1, low, high)})"


def _change(row: TableRow | None) -> str:
    return delta(row.delta_vs_skip, row.delta_ci_low, row.delta_ci_high) if row else "–"


def control_corpora(
    rows: Sequence[TableRow], kinds: Mapping[str, str], vocabularies: Mapping[str, int]
) -> Iterator[str]:
    """What updates do where nothing, or everything, can be learned; nothing where the grid has no such corpus.

    Args:
        rows: of the table.
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
        yield "| model | fast weights | method | loss | minus `skip` | minus ln of vocabulary | as expected |"
        yield "|---|---|---|---|---|---|---|"
        for row in mine:
            if row.update_rate == 0:
                continue
            floor = math.log(vocabularies[row.model])
            if kind == "repeated":
                expected = verdict(row.delta_ci_low, row.delta_ci_high) == "helped"
            else:
                expected = (row.loss if row.ci_high is None else row.ci_high) >= floor
            yield (
                f"| {row.model} | {row.fast_weights} | `{row.method}` | {row.loss:.4f} | {_change(row)} | "
                f"{row.loss - floor:+.4f} | {'yes' if expected else '**no**'} |"
            )
        yield ""
