"""Sentences of the guide on what updates do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ponderttt.names import CONTROL_METHODS
from ponderttt.reporting.guide.claims import ClaimRule, shown, verdict_over_seeds
from ponderttt.reporting.numbers.methods import FIXED_SCHEDULES
from ponderttt.reporting.numbers.rows import TableRow, decomposition_steps, find_row


def labels_of(rows: Sequence[TableRow]) -> list[str]:
    """Return the fast weights of rows, in their order."""
    return list(dict.fromkeys(row.fast_weights for row in rows if row.fast_weights != "none"))


def what_helped(rows: Sequence[TableRow], fast_weights: str, rule: ClaimRule) -> Iterator[str]:
    """Yield lines on training, and on updates of fixed schedules, against their baselines."""
    skip = find_row(rows, fast_weights, "skip", "score_first")
    if skip and skip.delta_vs_plain:
        trained = "Context and the trained adapter" if "+" in fast_weights else "The trained adapter"
        yield f"* {trained} against the plain backbone: {rule.judged(skip.delta_vs_plain)}."
    context = find_row(rows, "none", "full", "score_first")
    if skip and context:
        yield from _against_context(skip, context, rule)
    for row in rows:
        # Policies and wrong lessons have sections of their own.
        elsewhere = row.name.is_budgeted or row.name.base in CONTROL_METHODS
        if (
            row.fast_weights != fast_weights
            or row.protocol != "score_first"
            or row.update_rate == 0
            or elsewhere
        ):
            continue
        yield _against_skip(row, rule)
        if row.gain_slope and not rule.too_few:
            change = {-1: "shrinks", 1: "grows"}.get(
                rule.sign(row.gain_slope) or 0, "does not clearly change"
            )
            yield f"  * Along the stream, its gain {change} (per chunk {shown(row.gain_slope)})."
        if context:
            yield from _against_context(row, context, rule)


def _against_skip(row: TableRow, rule: ClaimRule) -> str:
    if row.delta_vs_skip is None:
        return f"* `{row.method}`: no comparison with the trained adapter with 0 updates ({row.note})."
    sentence = (
        f"* `{row.method}` against the trained adapter with 0 updates: {rule.judged(row.delta_vs_skip)}."
    )
    seeds = row.delta_seed_ci
    if seeds:
        said = "" if rule.too_few else f"{verdict_over_seeds(seeds)} "
        sentence += f" Over {row.n_seeds} seeds: {said}[{seeds.low:+.4f}, {seeds.high:+.4f}]."
    return sentence


def _against_context(row: TableRow, context: TableRow, rule: ClaimRule) -> Iterator[str]:
    if row.delta_vs_full is None:
        return
    relations = {-1: "better than", 0: "not clearly different from", 1: "worse than", None: "compared with"}
    relation = relations[rule.sign(row.delta_vs_full)]
    parts = ["Context", "adapter"] if "+" in row.fast_weights else ["The adapter"]
    parts += ["updates"] if row.update_rate else []
    joined = " and ".join(([", ".join(parts[:-1])] if parts[:-1] else []) + parts[-1:])
    together = f"{joined} are" if len(parts) > 1 else f"{joined} alone is"
    yield (
        f"  * {together} {relation} `full`: loss {row.loss:.4f} at {row.cost_seconds:.3g} s and "
        f"{row.cost_flops / 1e9:.3g} GFLOPs per chunk, against {context.loss:.4f} at {context.cost_seconds:.3g} s and "
        f"{context.cost_flops / 1e9:.3g} GFLOPs (difference {shown(row.delta_vs_full)}; "
        f"{row.cost_seconds / context.cost_seconds:.2f}× the seconds)."
    )


def without_gain(rows: Sequence[TableRow], rule: ClaimRule) -> Iterator[str]:
    """Yield the arms at the grid's budget whose gain over their baseline is not clear; nothing if none can be."""
    if rule.too_few:
        return
    compared = [
        row
        for row in rows
        if row.delta_vs_skip
        and row.name.budget is None
        and row.method not in ("plain", "skip", *CONTROL_METHODS)
    ]
    without = [row for row in compared if not clearly_helped(row, rule)]
    yield "### Arms without a clear gain"
    yield ""
    for row in without:
        said = rule.verdict(row.delta_vs_skip)
        yield f"* {row.label}: {'helped over streams, not clear over seeds' if said == 'helped' else said}"
    if not without:
        yield "None: every arm has a clearly lower loss than its baseline."
    yield ""


def clearly_helped(row: TableRow, rule: ClaimRule) -> bool:
    """Return whether an arm helped over streams and, with several seeds, over seeds."""
    return rule.sign(row.delta_vs_skip) == -1 and (not row.delta_seed_ci or row.delta_seed_ci.high < 0)


def decompositions(rows: Sequence[TableRow]) -> Iterator[str]:
    """Yield the parts that transductive numbers consist of."""
    for fast_weights in dict.fromkeys(row.fast_weights for row in rows):
        steps = decomposition_steps(rows, fast_weights)
        if steps is None:
            continue
        (_, backbone), (_, skip), (_, update), (_, leak) = steps
        total = leak.loss - backbone.loss
        one_sign = backbone.loss >= skip.loss >= update.loss >= leak.loss and total < 0
        yield f"### {fast_weights}: parts of the transductive number"
        yield ""
        yield (
            f"The transductive arm reports perplexity {leak.perplexity:.3f}, `{backbone.method}` {backbone.perplexity:.3f}: a "
            f"factor of {backbone.perplexity / leak.perplexity:.3f} ({total:+.4f} nats per token). "
            "These parts are point estimates across protocols. They explain that number; they do not compare methods."
        )
        yield ""
        for name, before, after in (
            ("(a) training the adapter", backbone, skip),
            ("(b) leakage: scoring a chunk after learning from it", update, leak),
            ("(c) test-time training: UPDATE_1 under `score_first`", skip, update),
        ):
            part = after.loss - before.loss
            # Parts of both signs are no shares.
            share = f", {100 * part / total:.1f} % of the total" if one_sign else ""
            yield f"* {name}: {part:+.4f} nats per token{share}"
        yield ""


def nominal_and_real(rows: Sequence[TableRow]) -> Iterator[str]:
    """Yield how nominal costs, the unit of budgets, compare with what was spent."""
    for fast_weights in labels_of(rows):
        mine = [row for row in rows if row.fast_weights == fast_weights and row.protocol == "score_first"]
        skip = next((row for row in mine if row.method == "skip"), None)
        spent = [
            f"`{row.method}` {row.cost_nominal:.3g}× nominal, {row.cost_flops / skip.cost_flops:.3f}× FLOPs, "
            f"{row.cost_seconds / skip.cost_seconds:.3f}× seconds"
            for row in mine
            if skip and row.corpus == skip.corpus and row.update_rate > 0 and row.method in FIXED_SCHEDULES
        ]
        if spent:
            yield f"* Cost of {fast_weights} in multiples of its `skip`: {'; '.join(spent)}."
