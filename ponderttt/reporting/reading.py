"""``results/README.md``: how to read the table, and what helped and what did not; every number is the table's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ponderttt.provenance import atomic_path
from ponderttt.reporting.figures import decomposition_steps, find_row
from ponderttt.reporting.rows import TableRow, groups_of, of_group, read_table, table_manifest

_COLUMNS = """\
| column | what it says |
|---|---|
| `model`, `fast_weights`, `method`, `protocol`, `corpus`, `language` | the arm: which backbone, what is changed at test time, when it is updated, in which order scoring and learning go |
| `budget`, `budget_error` | the mean cost per chunk that the arm is held to, in multiples of SKIP's; what it spent, divided by that, minus one |
| `deterministic`, `n_seeds` | a deterministic arm has one run, since nothing in it depends on a seed; it is never copied to look like several |
| `n_streams`, `n_chunks`, `n_tokens` | what was scored, once per seed: packages, chunks of them, tokens with a next token to predict |
| `loss`, `perplexity`, `bits_per_byte` | nats per token (every token weighs the same), its exponential, and the same information per byte of source code |
| `ci_low`, `ci_high` | {percent} interval of the loss: streams are resampled, seeds are averaged first; most of its width is how much packages differ in difficulty |
| `seed_ci_low`, `seed_ci_high` | t-interval of the mean over seeds, on these very streams |
| `delta_vs_skip`, `delta_ci_low`, `delta_ci_high` | loss minus the loss of the *trained adapter with 0 updates* of the same fast weights (for `none`: of the plain backbone), paired by stream; **below zero is better** |
| `delta_seed_ci_low`, `delta_seed_ci_high` | t-interval of that difference over seeds |
| `delta_iqm`, `p_improvement` | interquartile mean of the streams' own differences; probability that a random run has the lower loss on a random stream (0.5 is no difference) |
| `gain_slope`, `gain_slope_ci_low`, `gain_slope_ci_high` | how much the gain over `skip` grows from one chunk of a stream to the next, nats per token; above zero, adaptation grows with the stream |
| `delta_vs_plain…`, `delta_vs_context_1…` | the same paired difference to the plain backbone, and to the backbone that sees the previous chunk as context |
| `delta_vs_random…` | the same paired difference to random decisions of the same budget (for a fixed schedule: of its cost, within 5 %) |
| `delta_vs_fixed_flops…`, `delta_vs_fixed_seconds…` | the same paired difference to the best of SKIP, UPDATE_1, UPDATE_2, UPDATE_4 and the schedule at equal counted FLOPs and at equal measured seconds; between two of them, some streams get one and some the other |
| `update_rate`, `share_skip`, `share_update_1`, `share_update_2`, `share_update_4` | share of chunks after which at least one update was made; shares of the four actions |
| `rank_gap` | largest gap between the percentile ranks that a signal has here and those that it had on training streams (0: the percentiles hold) |
| `cost_nominal`, `cost_flops`, `cost_seconds` | means per chunk: the unit of budgets (SKIP = 1), FLOPs counted from the programs that ran, and measured seconds |
| `recovery_vs_skip`, `recovery_vs_random` | share of an oracle's gain that the arm has, given only where costs allow the comparison |
| `note` | why a cell is empty, or what to beware of |
| `run_digest`, `code_digest` | what the row was computed from: the manifests of its records, and the code that made them |
"""

_PROTOCOLS = {
    "score_first": "a chunk is scored before anything is learned from it. The only protocol whose numbers are results.",
    "in_chunk": "within a chunk, tokens are read with fast weights updated on earlier mini-batches of the same chunk by a "
    "loss that uses no next-token label. Causal token by token, but it spends its update before the chunk is scored, so "
    "it is never compared with score_first.",
    "transductive": "learns from a chunk and then scores the same chunk. **It leaks labels and is no result**; it is here to "
    "show how large such numbers get.",
}


def write_reading_guide(table: Path | str, output: Path | str) -> None:
    """Write the guide beside the table.

    Raises:
        CorruptFileError: the table is missing or damaged.
    """
    rows, manifest = read_table(table), table_manifest(table)
    with atomic_path(output) as temporary:
        temporary.write_text("\n".join(_guide(rows, manifest)) + "\n")


def verdict(low: float | None, high: float | None) -> str:
    """What a paired interval of a difference in loss says."""
    if low is None or high is None:
        return "not known (no interval)"
    if high < 0:
        return "helped"
    return "did harm" if low > 0 else "no clear difference"


def _guide(rows: Sequence[TableRow], manifest: dict[str, Any]) -> Iterator[str]:
    facts = manifest["facts"]
    percent = f"{100 * facts['statistics']['confidence']:g} %"
    yield "# How to read `paper_table.csv`, and what it says"
    yield ""
    yield "Every number on this page is computed from the table, and the table from the records under `runs/`."
    yield ""
    if facts["missing"]:
        yield f"**Incomplete: {len(facts['missing'])} runs are missing** and were allowed to be:"
        yield ""
        yield from (f"* `{folder}`" for folder in facts["missing"])
        yield ""
    for group in groups_of(rows):
        mine = of_group(rows, group)
        yield f"## {group[1]} on {group[0]} ({mine[0].language})"
        yield ""
        yield from _summary(mine, percent)
        for fast_weights in dict.fromkeys(row.fast_weights for row in mine if row.fast_weights != "none"):
            yield f"### {fast_weights}: what helped, and what did not"
            yield ""
            yield from _what_helped(mine, fast_weights, percent)
            yield ""
        yield from _without_gain(mine)
        yield from _decompositions(mine)
    yield "## Protocols"
    yield ""
    for protocol in dict.fromkeys(row.protocol for row in rows):
        yield f"* `{protocol}`: {_PROTOCOLS.get(protocol, 'see the design of the project.')}"
    yield ""
    yield "## Columns"
    yield ""
    yield _COLUMNS.format(percent=percent)
    yield from _cautions(rows, facts, percent)
    yield from _provenance(manifest)


def _summary(rows: Sequence[TableRow], percent: str) -> Iterator[str]:
    n = sorted({(row.n_streams, row.n_chunks, row.n_tokens) for row in rows})
    yield "; ".join(f"{s} streams, {c} chunks, {t:,} tokens" for s, c, t in n) + f". Intervals are {percent}."
    yield ""
    yield "| arm | protocol | runs | loss | perplexity | minus `skip` / `plain` | updates | GFLOPs per chunk | s per chunk |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        is_reference = row.method in ("plain", "skip")
        change = "–" if is_reference else _delta(row.delta_vs_skip, row.delta_ci_low, row.delta_ci_high)
        yield (
            f"| {row.label} | {row.protocol} | {row.n_seeds} | {row.loss:.4f} | {row.perplexity:.3f} | {change} | "
            f"{row.update_rate:.2f} | {row.cost_flops / 1e9:.3g} | {row.cost_seconds:.3g} |"
        )
    yield ""


def _delta(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.4f}" if low is None or high is None else f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def _what_helped(rows: Sequence[TableRow], fast_weights: str, percent: str) -> Iterator[str]:
    skip = find_row(rows, fast_weights, "skip", "score_first")
    if skip and skip.delta_vs_plain is not None:
        said = verdict(skip.delta_vs_plain_ci_low, skip.delta_vs_plain_ci_high)
        change = _delta(skip.delta_vs_plain, skip.delta_vs_plain_ci_low, skip.delta_vs_plain_ci_high)
        yield f"* Training the adapter, against the plain backbone: **{said}** ({change} nats per token)."
    context = find_row(rows, "none", "context_1", "score_first")
    if skip and context and skip.delta_vs_context_1 is not None:
        yield f"  * {_against_context(skip, context)}"
    for row in rows:
        if row.fast_weights != fast_weights or row.protocol != "score_first" or row.update_rate == 0:
            continue
        yield _against_skip(row, percent)
        if row.gain_slope is not None:
            grows = {"helped": "shrinks", "did harm": "grows"}.get(
                verdict(row.gain_slope_ci_low, row.gain_slope_ci_high), "does not clearly change"
            )
            slope = _delta(row.gain_slope, row.gain_slope_ci_low, row.gain_slope_ci_high)
            yield f"  * Along the stream its gain {grows} ({slope} nats per token and chunk)."
        if context and row.delta_vs_context_1 is not None:
            yield f"  * {_against_context(row, context)}"


def _against_skip(row: TableRow, percent: str) -> str:
    if row.delta_vs_skip is None:
        return f"* `{row.method}`: no comparison with the trained adapter with 0 updates ({row.note})."
    said = verdict(row.delta_ci_low, row.delta_ci_high)
    sentence = (
        f"* `{row.method}` against the trained adapter with 0 updates: **{said}** "
        f"({_delta(row.delta_vs_skip, row.delta_ci_low, row.delta_ci_high)} nats per token, {percent} over "
        f"{row.n_streams} streams)."
    )
    if row.delta_seed_ci_low is not None and row.delta_seed_ci_high is not None:
        over_seeds = verdict(row.delta_seed_ci_low, row.delta_seed_ci_high)
        joined = "agree" if over_seeds == said else "do not say the same"
        sentence += (
            f" The {row.n_seeds} seeds {joined}: [{row.delta_seed_ci_low:+.4f}, {row.delta_seed_ci_high:+.4f}]"
            f", {over_seeds}."
        )
    return sentence


def _against_context(row: TableRow, context: TableRow) -> str:
    said = {
        "helped": "better than",
        "did harm": "worse than",
        "no clear difference": "not clearly different from",
    }
    low, high = row.delta_vs_context_1_ci_low, row.delta_vs_context_1_ci_high
    relation = said.get(verdict(low, high), "compared with")
    return (
        f"Adapter{' and updates together are' if row.update_rate else ' alone is'} {relation} `context_1`: loss {row.loss:.4f} at {row.cost_seconds:.3g} s and "
        f"{row.cost_flops / 1e9:.3g} GFLOPs per chunk, against {context.loss:.4f} at {context.cost_seconds:.3g} s and "
        f"{context.cost_flops / 1e9:.3g} GFLOPs (difference {_delta(row.delta_vs_context_1, low, high)}; "
        f"{row.cost_seconds / context.cost_seconds:.2f}× the seconds)."
    )


def _without_gain(rows: Sequence[TableRow]) -> Iterator[str]:
    compared = [
        row
        for row in rows
        if row.delta_vs_skip is not None and (row.update_rate > 0 or row.method not in ("plain", "skip"))
    ]
    without = [row for row in compared if not _clearly_helped(row)]
    yield "### Arms that show no gain"
    yield ""
    for row in without:
        said = verdict(row.delta_ci_low, row.delta_ci_high)
        yield f"* {row.label}: {'helped over streams, not clear across seeds' if said == 'helped' else said}"
    if not without:
        yield "None: every arm that is compared with its control has a lower loss, and its interval excludes zero."
    yield ""


def _clearly_helped(row: TableRow) -> bool:
    """Over streams, and over seeds where there are several."""
    over_streams = verdict(row.delta_ci_low, row.delta_ci_high) == "helped"
    return over_streams and (row.delta_seed_ci_high is None or row.delta_seed_ci_high < 0)


def _decompositions(rows: Sequence[TableRow]) -> Iterator[str]:
    for fast_weights in dict.fromkeys(row.fast_weights for row in rows):
        steps = decomposition_steps(rows, fast_weights)
        if steps is None:
            continue
        (_, plain), (_, skip), (_, update), (_, leak) = steps
        total = leak.loss - plain.loss
        yield f"### {fast_weights}: what a transductive number is made of"
        yield ""
        yield (
            f"The transductive arm reports perplexity {leak.perplexity:.3f} where the plain backbone has "
            f"{plain.perplexity:.3f}, a factor of {plain.perplexity / leak.perplexity:.3f} ({total:+.4f} nats per token). "
            "Point estimates across protocols, to take that number apart; they are no comparison of methods:"
        )
        yield ""
        for name, before, after in (
            ("(a) training the adapter", plain, skip),
            ("(b) leakage: scoring a chunk after learning from it", update, leak),
            ("(c) test-time training, the update scored honestly", skip, update),
        ):
            part = after.loss - before.loss
            share = f", {100 * part / total:.1f} % of it" if total < 0 else ""
            yield f"* {name}: {part:+.4f} nats per token{share}"
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
    yield from _nominal_and_real(rows)
    yield ""


def _nominal_and_real(rows: Sequence[TableRow]) -> Iterator[str]:
    """How far the nominal costs, in which budgets are stated, are from what was spent."""
    for fast_weights in dict.fromkeys(row.fast_weights for row in rows if row.fast_weights != "none"):
        mine = [row for row in rows if row.fast_weights == fast_weights and row.protocol == "score_first"]
        skip = next((row for row in mine if row.method == "skip"), None)
        spent = [
            f"`{row.method}` {row.cost_nominal:.3g}× nominal, {row.cost_flops / skip.cost_flops:.3f}× FLOPs, "
            f"{row.cost_seconds / skip.cost_seconds:.3f}× seconds"
            for row in mine
            if skip and row.corpus == skip.corpus and row.update_rate > 0
        ]
        if spent:
            yield f"* Cost of {fast_weights} in multiples of its `skip`: {'; '.join(spent)}."


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
