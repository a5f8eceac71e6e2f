"""``results/README.md``: how to read the table, what helped and what did not; every number comes from the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ponderttt.files.atomic import atomic_path
from ponderttt.reporting.guide.claims import ClaimRule, confirmatory_section, shown
from ponderttt.reporting.guide.control_statements import control_corpora, wrong_lessons
from ponderttt.reporting.guide.reference_statements import control_of, reference_section
from ponderttt.reporting.guide.rule_statements import (
    area_section,
    front_section,
    in_short,
    policy_section,
    signal_section,
)
from ponderttt.reporting.guide.update_statements import (
    decompositions,
    labels_of,
    nominal_and_real,
    what_helped,
    without_gain,
)
from ponderttt.reporting.numbers.columns import documentation, rows_of
from ponderttt.reporting.numbers.results import FILES, Results, read_results
from ponderttt.reporting.numbers.rows import ConfirmatoryRow, ReferenceRow, TableRow
from ponderttt.reporting.numbers.significance import fewest_streams

PROTOCOLS = {
    "score_first": "scores a chunk before it learns from it. Only this protocol gives results.",
    "in_chunk": "reads tokens with fast weights that were updated on earlier mini-batches of the same chunk, with a loss that "
    "uses no next-token label. It is causal token by token, but it spends its update before the chunk is scored. So it is "
    "never compared with score_first.",
    "transductive": "learns from a chunk and then scores the same chunk. **It leaks labels and is no result**; it shows how "
    "large such numbers get.",
}


def write_reading_guide(table: Path | str, output: Path | str) -> None:
    """Write the guide.

    Args:
        table: ``paper_table.csv``; the other result files and their manifest are in the same folder.
        output: path of the guide.

    Raises:
        CorruptFileError: a file is missing or damaged.
    """
    lines = _guide(read_results(table))
    with atomic_path(output) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _guide(everything: Results) -> Iterator[str]:
    facts = everything.facts
    confidence = facts["statistics"]["confidence"]
    percent = f"{100 * confidence:g} %"
    yield "# How to read `paper_table.csv`, and what it says"
    yield ""
    yield (
        "Every number here is computed from the files beside this page, and those from the records under `runs/`. Losses and "
        f"differences are in nats per token, intervals are {percent} over streams, and p is of a sign-flip test over streams."
    )
    yield ""
    if facts["missing"]:
        yield (
            f"**The table is incomplete.** Missing runs ({len(facts['missing'])}), which `statistics.allow_missing` "
            "permits; column `n_seeds` counts the runs of each row:"
        )
        yield ""
        yield from (f"* `{folder}`" for folder in facts["missing"])
        yield ""
    results = everything.without_controls
    groups = {(corpus, model): group for corpus, model, group in results.groups()}

    def control(row: ConfirmatoryRow, rule: ClaimRule) -> str:
        group = groups[row.corpus, row.model]
        return control_of(row, rows_of(TableRow, group.table), rows_of(ReferenceRow, group.references), rule)

    yield from confirmatory_section(rows_of(ConfirmatoryRow, everything.confirmatory), confidence, control)
    for corpus, model, group in results.groups():
        mine = rows_of(TableRow, group.table)
        yield f"## In short, exploratory: {model} on {corpus}"
        yield ""
        yield from in_short(mine, ClaimRule(confidence, mine[0].n_streams))
        yield ""
    for _, _, group in results.groups():
        yield from _group(group, confidence)
    rows = rows_of(TableRow, everything.table)
    yield from control_corpora(rows, facts["control_corpora"], facts["vocabularies"])
    yield "## Protocols"
    yield ""
    for protocol in dict.fromkeys(row.protocol for row in rows):
        yield f"* `{protocol}` {PROTOCOLS.get(protocol, 'is described in docs/design.md.')}"
    yield ""
    for name, kind in FILES.values():
        yield f"## Columns of `{name}`"
        yield ""
        yield (kind.__doc__ or "").replace("``", "`")
        yield ""
        yield from (line.replace("{percent}", percent) for line in documentation(kind))
        yield ""
    yield from _cautions(rows_of(TableRow, results.table) or rows, facts, percent)
    yield from _provenance(everything.manifest)


def _group(group: Results, confidence: float) -> Iterator[str]:
    """Yield everything on one model and corpus."""
    rows = rows_of(TableRow, group.table)
    rule = ClaimRule(confidence, rows[0].n_streams)
    yield f"## {rows[0].model} on {rows[0].corpus} ({rows[0].language})"
    yield ""
    yield from _summary(rows, rule)
    for fast_weights in labels_of(rows):
        yield f"### {fast_weights}: what helped, and what did not"
        yield ""
        yield from what_helped(rows, fast_weights, rule)
        yield ""
        yield from policy_section(rows, fast_weights, rule)
        yield from reference_section(rows_of(ReferenceRow, group.references), fast_weights, rule)
        yield from area_section(group.frontier, fast_weights, rule)
        yield from signal_section(group.signals, fast_weights, rule)
    yield from front_section(group.frontier)
    yield from wrong_lessons(rows, rule)
    yield from without_gain(rows, rule)
    yield from decompositions(rows)


def _summary(rows: Sequence[TableRow], rule: ClaimRule) -> Iterator[str]:
    n = sorted({(row.n_streams, row.n_chunks, row.n_tokens) for row in rows})
    yield "; ".join(f"{s} streams, {c} chunks, {t:,} tokens" for s, c, t in n) + "."
    if rule.too_few:
        yield ""
        yield (
            f"**{rule.too_few}.** Below {fewest_streams(rule.confidence)} streams, no sign-flip test reaches "
            f"p = {1 - rule.confidence:.2g}. What follows describes these streams only."
        )
    yield ""
    if any(row.name.budget for row in rows):
        yield "Methods are at the budget of the grid; the sections below and the table have the other budgets."
        yield ""
    yield "| arm | `protocol` | `n_seeds` | `loss` | `perplexity` | `delta_vs_skip` | `update_rate` | `cost_flops` / 10⁹ | `cost_seconds` |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        if row.name.budget:
            continue
        change = "–" if row.method in ("plain", "skip") else shown(row.delta_vs_skip)
        yield (
            f"| {row.label} | {row.protocol} | {row.n_seeds} | {row.loss:.4f} | {row.perplexity:.3f} | {change} | "
            f"{row.update_rate:.2f} | {row.cost_flops / 1e9:.3g} | {row.cost_seconds:.3g} |"
        )
    yield ""


def _cautions(rows: Sequence[TableRow], facts: dict[str, Any], percent: str) -> Iterator[str]:
    level = f"{1 - facts['statistics']['confidence']:.2g}"
    fewest = min(row.n_streams for row in rows)
    yield "## Cautions"
    yield ""
    yield (
        f'* "Helped", "hurt" and "clearly" mean: the paired {percent} interval over streams excludes zero, and the sign-flip test '
        f"has p of at most {level}. Only the confirmatory comparisons are corrected for their number."
    )
    yield (
        f"* With {fewest} streams, intervals are right for symmetric differences and somewhat too narrow for very skewed ones "
        "(docs/statistics.md has their coverage). Confirm small gains with more streams."
    )
    yield (
        "* Seconds were measured on one machine, with its other load; FLOPs are counted and do not vary. All arms share the "
        "frozen logits of a chunk, and each is charged for them in full, including the cost of writing them to disk. The plain "
        "backbone streams them and does not pay that."
    )
    yield (
        "* `full` and `window_n` keep keys and values of earlier chunks. `context_n` reads n chunks again for each chunk, so it "
        "costs more; it is for models whose positions are learned."
    )
    yield (
        "* One adapter per seed serves all methods: each training stream draws 0, 1, 2 or 4 updates. An adapter trained for "
        "0 updates alone might be a somewhat stronger baseline."
    )
    yield from nominal_and_real(rows)
    yield ""


def _provenance(manifest: dict[str, Any]) -> Iterator[str]:
    facts, run = manifest["facts"], manifest["run"]
    records = facts["records"]
    yield "## Provenance"
    yield ""
    yield f"* command: `{facts['command']}`"
    yield f"* table: {run['time_utc']}, commit {run['git_commit']}, code digest {run['code_digest'][:16]}"
    yield (
        f"* records: {records['n_runs']} runs, {records['first_time_utc']} to {records['last_time_utc']}, "
        f"commit {', '.join(records['git_commit'])}, stage digest {', '.join(d[:16] for d in records['stage_digest'])}"
    )
    yield (
        f"* machine: {', '.join(records['machine'])}; Python {', '.join(records['python'])}; "
        f"{', '.join(records['packages'])}"
    )
    for name, file in manifest["files"].items():
        yield f"* `{name}`: {file['rows']} rows, sha256 {file['sha256']}"
