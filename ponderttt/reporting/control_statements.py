"""Sentences of the guide on controls: what is left of a gain when the lesson, or the stream, is spoilt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ponderttt.config import CONTROL_METHODS
from ponderttt.reporting.figures import find_row
from ponderttt.reporting.rows import TableRow
from ponderttt.reporting.statements import delta, labels_of, verdict

_LESSONS = {
    "shuffled": "learns from the chunk's hidden states and labels in unrelated orders, so it must not help",
    "sign_flipped": "makes UPDATE_1 in the opposite direction, so what that gains it must lose",
    "other_stream": "learns from another stream's chunk, so it must help less than UPDATE_1; what is left is of any code",
}
#: Kind of a control corpus → what it is, and whether updates must help.
_CORPORA = {
    "random_tokens": ("tokens drawn uniformly: there is nothing to learn, so no update may help", False),
    "repeated": (
        "each stream repeats its first chunks: what was learned comes again, so updates must help",
        True,
    ),
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
    yield f"| fast weights | `update_1` | {' | '.join(f'`{name}`' for name in present)} | as expected |"
    yield f"|---|{'---|' * (len(present) + 2)}"
    for fast_weights in labels_of(rows):
        update = find_row(rows, fast_weights, "update_1", "score_first")
        controls = {name: find_row(rows, fast_weights, name, "score_first") for name in present}
        surprises = [name for name, row in controls.items() if row and not _as_expected(row, update)]
        cells = " | ".join(_change(row) for row in controls.values())
        said = f"**no: {', '.join(f'`{name}`' for name in surprises)}**" if surprises else "yes"
        yield f"| {fast_weights} | {_change(update)} | {cells} | {said} |"
    yield ""
    yield "Differences to the trained adapter with 0 updates, nats per token."
    yield ""


def _change(row: TableRow | None) -> str:
    return delta(row.delta_vs_skip, row.delta_ci_low, row.delta_ci_high) if row else "–"


def _as_expected(row: TableRow, update: TableRow | None) -> bool:
    said = verdict(row.delta_ci_low, row.delta_ci_high)
    if update is None or row.method == "shuffled":
        return said != "helped"
    if row.method == "sign_flipped":
        return said not in ("helped", "did harm") or said != verdict(
            update.delta_ci_low, update.delta_ci_high
        )
    return said != "helped" or (row.delta_vs_skip or 0.0) > (update.delta_vs_skip or 0.0)


def control_corpora(rows: Sequence[TableRow], kinds: Mapping[str, str]) -> Iterator[str]:
    """What updates do where nothing, or everything, can be learned; nothing where the grid has no such corpus."""
    if not any(row.corpus in kinds for row in rows):
        return
    yield "## Control corpora"
    yield ""
    for corpus, kind in kinds.items():
        mine = [row for row in rows if row.corpus == corpus]
        if not mine:
            continue
        what, must_help = _CORPORA[kind]
        yield f"### {corpus}"
        yield ""
        yield f"{what[0].upper()}{what[1:]}. {mine[0].n_streams} streams, {mine[0].n_chunks} chunks."
        yield ""
        yield "| model | fast weights | method | loss | minus `skip` | as expected |"
        yield "|---|---|---|---|---|---|"
        for row in mine:
            if row.update_rate == 0:
                continue
            helped = verdict(row.delta_ci_low, row.delta_ci_high) == "helped"
            said = "yes" if helped == must_help else "**no**"
            yield f"| {row.model} | {row.fast_weights} | `{row.method}` | {row.loss:.4f} | {_change(row)} | {said} |"
        yield ""
