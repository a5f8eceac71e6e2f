"""Sentences of the guide on what updating does: every number in them is the table's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ponderttt.names import BUDGETED_METHODS, CONTROL_METHODS, split_method
from ponderttt.reporting.numbers.methods import FIXED_SCHEDULES
from ponderttt.reporting.numbers.rows import TableRow, decomposition_steps, find_row


def verdict(low: float | None, high: float | None) -> str:
    """What a paired interval of a difference in loss says."""
    if low is None or high is None:
        return "not known (no interval)"
    if high < 0:
        return "helped"
    return "did harm" if low > 0 else "no clear difference"


def delta(value: float | None, low: float | None, high: float | None) -> str:
    """A difference with its interval, as far as they are known."""
    if value is None:
        return "–"
    return f"{value:+.4f}" if low is None or high is None else f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def labels_of(rows: Sequence[TableRow]) -> list[str]:
    """The fast weights of rows, in their order."""
    return list(dict.fromkeys(row.fast_weights for row in rows if row.fast_weights != "none"))


def what_helped(rows: Sequence[TableRow], fast_weights: str, percent: str) -> Iterator[str]:
    """Training, and updates that are fixed in advance, against their controls."""
    skip = find_row(rows, fast_weights, "skip", "score_first")
    if skip and skip.delta_vs_plain is not None:
        said = verdict(skip.delta_vs_plain_ci_low, skip.delta_vs_plain_ci_high)
        change = delta(skip.delta_vs_plain, skip.delta_vs_plain_ci_low, skip.delta_vs_plain_ci_high)
        trained = "Context and training the adapter" if "+" in fast_weights else "Training the adapter"
        yield f"* {trained}, against the plain backbone: **{said}** ({change} nats per token)."
    context = find_row(rows, "none", "context_1", "score_first")
    if skip and context and skip.delta_vs_context_1 is not None:
        yield f"  * {_against_context(skip, context)}"
    for row in rows:
        # Rules have a section of their own, and so have updates that learn from the wrong thing.
        elsewhere = split_method(row.method)[0] in (*BUDGETED_METHODS, *CONTROL_METHODS)
        if (
            row.fast_weights != fast_weights
            or row.protocol != "score_first"
            or row.update_rate == 0
            or elsewhere
        ):
            continue
        yield _against_skip(row, percent)
        if row.gain_slope is not None:
            grows = {"helped": "shrinks", "did harm": "grows"}.get(
                verdict(row.gain_slope_ci_low, row.gain_slope_ci_high), "does not clearly change"
            )
            slope = delta(row.gain_slope, row.gain_slope_ci_low, row.gain_slope_ci_high)
            yield f"  * Along the stream its gain {grows} ({slope} nats per token and chunk)."
        if context and row.delta_vs_context_1 is not None:
            yield f"  * {_against_context(row, context)}"


def _against_skip(row: TableRow, percent: str) -> str:
    if row.delta_vs_skip is None:
        return f"* `{row.method}`: no comparison with the trained adapter with 0 updates ({row.note})."
    said = verdict(row.delta_ci_low, row.delta_ci_high)
    sentence = (
        f"* `{row.method}` against the trained adapter with 0 updates: **{said}** "
        f"({delta(row.delta_vs_skip, row.delta_ci_low, row.delta_ci_high)} nats per token, {percent} over "
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
    parts = ["context"] if "+" in row.fast_weights else []
    parts += ["adapter", "updates"] if row.update_rate else ["adapter"]
    joined = " and ".join(([", ".join(parts[:-1])] if parts[:-1] else []) + parts[-1:])
    together = f"{joined} together are" if len(parts) > 1 else f"{joined} alone is"
    return (
        f"{together.capitalize()} {relation} `context_1`: loss {row.loss:.4f} at {row.cost_seconds:.3g} s and "
        f"{row.cost_flops / 1e9:.3g} GFLOPs per chunk, against {context.loss:.4f} at {context.cost_seconds:.3g} s and "
        f"{context.cost_flops / 1e9:.3g} GFLOPs (difference {delta(row.delta_vs_context_1, low, high)}; "
        f"{row.cost_seconds / context.cost_seconds:.2f}× the seconds)."
    )


def without_gain(rows: Sequence[TableRow]) -> Iterator[str]:
    """The arms at the study's own budget whose gain over their control is not clear."""
    compared = [
        row
        for row in rows
        if row.delta_vs_skip is not None
        and "@" not in row.method
        and row.method not in ("plain", "skip", *CONTROL_METHODS)
    ]
    without = [row for row in compared if not clearly_helped(row)]
    yield "### Arms that show no gain"
    yield ""
    for row in without:
        said = verdict(row.delta_ci_low, row.delta_ci_high)
        yield f"* {row.label}: {'helped over streams, not clear across seeds' if said == 'helped' else said}"
    if not without:
        yield "None: every arm that is compared with its control has a lower loss, and its interval excludes zero."
    yield ""


def clearly_helped(row: TableRow) -> bool:
    """Over streams, and over seeds where there are several."""
    over_streams = verdict(row.delta_ci_low, row.delta_ci_high) == "helped"
    return over_streams and (row.delta_seed_ci_high is None or row.delta_seed_ci_high < 0)


def decompositions(rows: Sequence[TableRow]) -> Iterator[str]:
    """What transductive numbers are made of."""
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


def nominal_and_real(rows: Sequence[TableRow]) -> Iterator[str]:
    """How far the nominal costs, in which budgets are stated, are from what was spent."""
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
