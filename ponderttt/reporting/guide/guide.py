"""``results/README.md``: how to read the table, and what helped and what did not; every number is the table's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ponderttt.files.atomic import atomic_path
from ponderttt.reporting.guide.control_statements import control_corpora, wrong_lessons
from ponderttt.reporting.guide.rule_statements import (
    area_section,
    front_section,
    in_short,
    rule_section,
    signal_section,
)
from ponderttt.reporting.guide.update_statements import (
    decompositions,
    delta,
    labels_of,
    nominal_and_real,
    what_helped,
    without_gain,
)
from ponderttt.reporting.numbers.columns import FILES, PROTOCOLS, TABLE
from ponderttt.reporting.numbers.rows import (
    FRONTIER,
    SIGNALS,
    FrontierRow,
    SignalRow,
    TableRow,
    groups_of,
    of_group,
    read_frontier,
    read_signals,
    read_table,
    table_manifest,
    without_control_corpora,
)


def write_reading_guide(table: Path | str, output: Path | str) -> None:
    """Write the guide beside the table.

    Args:
        table: ``paper_table.csv``, beside it ``frontier.csv``, ``signals.csv`` and their manifest.
        output: the guide.

    Raises:
        CorruptFileError: a file is missing or damaged.
    """
    table = Path(table)
    lines = _guide(
        table,
        read_table(table),
        read_frontier(table.with_name(FRONTIER)),
        read_signals(table.with_name(SIGNALS)),
        table_manifest(table),
    )
    with atomic_path(output) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _guide(
    table: Path,
    rows: Sequence[TableRow],
    frontier: Sequence[FrontierRow],
    signals: Sequence[SignalRow],
    manifest: dict[str, Any],
) -> Iterator[str]:
    facts = manifest["facts"]
    confidence = facts["statistics"]["confidence"]
    percent = f"{100 * confidence:g} %"
    yield "# How to read `paper_table.csv`, and what it says"
    yield ""
    yield (
        "Every number on this page is computed from the files beside it, and these from the records under `runs/`."
    )
    yield ""
    if facts["missing"]:
        yield f"**Incomplete: {len(facts['missing'])} runs are missing** and were allowed to be:"
        yield ""
        yield from (f"* `{folder}`" for folder in facts["missing"])
        yield ""
    results = without_control_corpora(table, rows)
    for group in groups_of(results):
        yield f"## In short: {group[1]} on {group[0]}"
        yield ""
        yield from in_short(of_group(results, group), confidence)
        yield ""
    for group in groups_of(results):
        yield from _group(
            of_group(results, group), of_group(frontier, group), of_group(signals, group), confidence
        )
    yield from control_corpora(rows, facts["control_corpora"], facts["vocabularies"])
    yield "## Protocols"
    yield ""
    for protocol in dict.fromkeys(row.protocol for row in rows):
        yield f"* `{protocol}`: {PROTOCOLS.get(protocol, 'see the design of the project.')}"
    yield ""
    yield "## Columns of `paper_table.csv`"
    yield ""
    yield TABLE.format(percent=percent)
    yield "## Other files"
    yield ""
    yield FILES
    yield from _cautions(results or rows, facts, percent)
    yield from _provenance(manifest)


def _group(
    rows: Sequence[TableRow],
    frontier: Sequence[FrontierRow],
    signals: Sequence[SignalRow],
    confidence: float,
) -> Iterator[str]:
    """Everything on one model and corpus."""
    percent = f"{100 * confidence:g} %"
    yield f"## {rows[0].model} on {rows[0].corpus} ({rows[0].language})"
    yield ""
    yield from _summary(rows, percent)
    for fast_weights in labels_of(rows):
        yield f"### {fast_weights}: what helped, and what did not"
        yield ""
        yield from what_helped(rows, fast_weights, percent)
        yield ""
        yield from rule_section(rows, fast_weights, confidence)
        yield from area_section(frontier, fast_weights, confidence)
        yield from signal_section(signals, fast_weights, confidence)
    yield from front_section(frontier)
    yield from wrong_lessons(rows)
    yield from without_gain(rows)
    yield from decompositions(rows)


def _summary(rows: Sequence[TableRow], percent: str) -> Iterator[str]:
    n = sorted({(row.n_streams, row.n_chunks, row.n_tokens) for row in rows})
    yield "; ".join(f"{s} streams, {c} chunks, {t:,} tokens" for s, c, t in n) + f". Intervals are {percent}."
    yield ""
    if any("@" in row.method for row in rows):
        yield "Methods at the study's own budget; those at other budgets are in the sections below and in the table."
        yield ""
    yield "| arm | protocol | runs | loss | perplexity | minus `skip` / `plain` | updates | GFLOPs per chunk | s per chunk |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        if "@" in row.method:
            continue
        is_reference = row.method in ("plain", "skip")
        change = "–" if is_reference else delta(row.delta_vs_skip, row.delta_ci_low, row.delta_ci_high)
        yield (
            f"| {row.label} | {row.protocol} | {row.n_seeds} | {row.loss:.4f} | {row.perplexity:.3f} | {change} | "
            f"{row.update_rate:.2f} | {row.cost_flops / 1e9:.3g} | {row.cost_seconds:.3g} |"
        )
    yield ""


def _cautions(rows: Sequence[TableRow], facts: dict[str, Any], percent: str) -> Iterator[str]:
    samples = facts["statistics"]["bootstrap_samples"]
    yield "## Cautions"
    yield ""
    yield (
        f'* "Helped" and "did harm" mean that the paired {percent} interval over streams excludes zero '
        f"({samples:,} resamples). Many intervals are looked at here and none is widened for that."
    )
    yield (
        f"* With {min(row.n_streams for row in rows)} streams, percentile intervals are somewhat too narrow; small gains "
        "deserve more packages before they are believed."
    )
    yield (
        "* Seconds are of one machine under whatever else it did; FLOPs are counted and do not vary. Arms share the frozen "
        "logits of a chunk and are each charged for them in full; writing them down to be shared is part of that charge, and "
        "the plain backbone, which streams them, does not pay it."
    )
    yield (
        "* `context_1` reads the previous chunk anew for each chunk. Keeping its keys and values instead would cost less, so "
        "its cost here is an upper bound."
    )
    yield (
        "* One adapter per seed serves all methods: each training stream draws 0, 1, 2 or 4 updates. An adapter trained for 0 "
        "updates alone might be a somewhat stronger control."
    )
    yield from nominal_and_real(rows)
    yield ""


def _provenance(manifest: dict[str, Any]) -> Iterator[str]:
    facts, run = manifest["facts"], manifest["run"]
    records = facts["records"]
    packages = ", ".join(records["packages"])
    yield "## Where this comes from"
    yield ""
    yield f"* command: `{facts['command']}`"
    yield f"* table made: {run['time_utc']}, commit {run['git_commit']}, code digest {run['code_digest'][:16]}"
    yield (
        f"* records: {records['n_runs']} runs, {records['first_time_utc']} to {records['last_time_utc']}, "
        f"commit {', '.join(records['git_commit'])}, stage digest {', '.join(d[:16] for d in records['stage_digest'])}"
    )
    yield f"* machine: {', '.join(records['machine'])}; Python {', '.join(records['python'])}; {packages}"
    for name, file in manifest["files"].items():
        yield f"* `{name}`: {file['rows']} rows, sha256 {file['sha256']}"
