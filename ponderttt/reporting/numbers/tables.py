"""``paper_table.csv`` and the files beside it: every number is computed from records."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.reporting.numbers.arms import Arm, load_arms
from ponderttt.reporting.numbers.columns import Estimate
from ponderttt.reporting.numbers.comparisons import Difference, difference
from ponderttt.reporting.numbers.confirmatory import confirmatory_rows, declared_of
from ponderttt.reporting.numbers.exact import expected
from ponderttt.reporting.numbers.frontier import frontier_rows
from ponderttt.reporting.numbers.references import (
    References,
    baseline_of,
    costs_the_same,
    recoveries,
    references_of,
)
from ponderttt.reporting.numbers.results import write_results
from ponderttt.reporting.numbers.rows import (
    ConfirmatoryRow,
    FrontierRow,
    ReferenceRow,
    SeedRow,
    SignalRow,
    TableRow,
)
from ponderttt.reporting.numbers.run_records import Run
from ponderttt.reporting.numbers.sampling import StreamSampling
from ponderttt.reporting.numbers.sequences import load_sequences
from ponderttt.reporting.numbers.signals import signal_rows
from ponderttt.reporting.numbers.statistics import RatioTerms, t_interval, uniform_gap
from ponderttt.settings.confirmatory import Comparison
from ponderttt.settings.mapping import as_mapping
from ponderttt.settings.statistics import StatisticsConfig

#: Hex digits of a digest in a cell.
DIGEST_DIGITS = 16


class Table(NamedTuple):
    """The rows of every result file, and the facts for their manifest."""

    rows: list[TableRow]
    confirmatory: list[ConfirmatoryRow]
    seeds: list[SeedRow]
    frontier: list[FrontierRow]
    signals: list[SignalRow]
    references: list[ReferenceRow]
    facts: dict[str, Any]


def write_table(
    run_folders: Sequence[Path | str],
    expected_code: str | None,
    statistics: StatisticsConfig,
    results_dir: Path | str,
    command: str,
    *,
    sequences: Sequence[Path | str] = (),
    control_corpora: Mapping[str, str] | None = None,
    vocabularies: Mapping[str, int] | None = None,
) -> list[TableRow]:
    """Compute the table and write it with the other result files and their manifest.

    Prints n for every row.

    Args:
        run_folders: every ``results/runs/{corpus}/{model}/{fast_weights}/{method}/seed-{seed}`` of the grid.
        expected_code: stage digest that all records must carry; None accepts any, but one per arm.
        statistics: intervals, tests and declared comparisons; with ``allow_missing``, the table has the runs that exist, and
            the manifest and the guide list the others.
        results_dir: folder of the files.
        command: the command that rebuilds the table, for its manifest and the guide.
        sequences: folders of the losses of all sequences, for exact references.
        control_corpora: control corpus → its kind; figures leave these corpora out.
        vocabularies: model → number of its tokens, for control corpora.

    Raises:
        PonderTTTError: see :func:`build_table`; nothing is written then.
        ValueError: there are control corpora, and no vocabularies.
    """
    if control_corpora and not vocabularies:
        raise ValueError("control corpora need the sizes of the models' vocabularies: give both")
    table = build_table(run_folders, expected_code, statistics, control_corpora or (), sequences)
    facts = {
        **table.facts,
        "control_corpora": dict(control_corpora or {}),
        "vocabularies": dict(vocabularies or {}),
        "command": command,
    }
    rows: dict[str, Sequence[Any]] = {
        "table": table.rows,
        "confirmatory": table.confirmatory,
        "seeds": table.seeds,
        "frontier": table.frontier,
        "signals": table.signals,
        "references": table.references,
    }
    write_results(results_dir, rows, facts)
    for row in table.rows:
        print(
            f"{row.corpus} {row.model} {row.label} ({row.protocol}): "
            f"{row.n_seeds} {'run, deterministic' if row.deterministic else 'seeds'}, "
            f"{row.n_streams} streams, {row.n_chunks} chunks, {row.n_tokens:,} tokens"
        )
    return table.rows


def build_table(
    run_folders: Sequence[Path | str],
    expected_code: str | None,
    statistics: StatisticsConfig,
    control_corpora: Collection[str] = (),
    sequences: Sequence[Path | str] = (),
) -> Table:
    """Compute every number of the results folder; no comparison on a control corpus is confirmatory.

    Where the losses of all sequences are known, ``random`` has their mean instead of those of its draws.

    Raises:
        PonderTTTError: a run is missing or given twice, its records come from another version of the code, hold a
            value that is not finite or a chunk twice, or two arms that are compared scored different chunks.
    """
    arms, records = load_arms(run_folders, expected_code, allow_missing=statistics.allow_missing)
    sets = load_sequences(sequences)
    arms = [expected(arm, sets) for arm in arms]
    # One sampling per corpus, so that every difference within it is paired.
    samplings = {
        (corpus, streams): StreamSampling.of(streams, corpus, statistics)
        for corpus, streams in dict.fromkeys((arm.key.corpus, len(arm.chunks.streams)) for arm in arms)
    }
    declared = statistics.comparisons
    rows, seeds, reference_rows = [], [], []
    for arm in arms:
        sampling = samplings[arm.key.corpus, len(arm.chunks.streams)]
        references = references_of(arm, arms, sets)
        row, of_seeds = _row(arm, references, sampling, declared_of(arm, declared, control_corpora))
        rows.append(row)
        seeds += of_seeds
        reference_rows += _reference_rows(arm, references, sampling)
    facts = {
        "statistics": as_mapping(statistics),
        "missing": [str(folder) for folder in records.missing],
        "records": _provenance(records.runs),
    }
    return Table(
        rows,
        confirmatory_rows(arms, declared, samplings, control_corpora),
        seeds,
        frontier_rows(arms, samplings),
        signal_rows(arms, statistics.confidence),
        reference_rows,
        facts,
    )


def _row(
    arm: Arm, references: References, sampling: StreamSampling, declared: Sequence[Comparison]
) -> tuple[TableRow, list[SeedRow]]:
    key, measures, tokens, nats = arm.key, arm.measures, arm.tokens, arm.nats
    seed_losses = nats.sum(axis=1) / tokens.sum()
    mean = RatioTerms(nats.mean(axis=0), tokens)
    notes = [] if len(tokens) > 1 else ["no interval over streams: there is one stream"]
    if 1 < len(tokens) < 4:
        notes.append(f"no interquartile mean: {len(tokens)} streams, it needs at least 4")

    def versus(reference: Arm | None, missing: str | None = None) -> Difference | None:
        if reference is None and missing and key.protocol == "score_first":
            notes.append(f"no {missing} arm to compare with")
        found = difference(arm, reference, sampling) if reference else None
        if reference and found is None:
            notes.append(f"no seed in common with {reference.key.fast_weights} {reference.key.method}")
        return found

    def delta(reference: Arm | None) -> Estimate | None:
        found = versus(reference)
        return found.delta if found else None

    if key.protocol != "score_first":
        notes.append(f"{key.protocol} never shares a comparison with score_first")
    if arm.name.base == "random" and references.exact:
        notes.append("loss: mean over all sequences of the budget, not a draw")
    skip = versus(references.baseline, " ".join(baseline_of(key.fast_weights)))
    plain = skip if references.plain is references.baseline else versus(references.plain, "plain")
    context = delta(references.full)
    random = delta(references.random if _comparable(arm, references.random, notes) else None)
    update = delta(references.update_1)
    rule = delta(references.rule)
    fixed_flops, fixed_seconds = delta(references.fixed_flops), delta(references.fixed_seconds)
    over_skip, over_random = recoveries(arm, references)
    notes.extend(dict.fromkeys(found.note for found in (over_skip, over_random) if found.note))
    share_over_skip, share_over_random = (
        sampling.estimate(found.share) if found.share else None for found in (over_skip, over_random)
    )
    if any(share and share.low is None for share in (share_over_skip, share_over_random)) and len(tokens) > 1:
        notes.append("no interval of a recovery: the gain of the oracle is too uncertain")
    shares = [float((measures["action"] == action).mean()) for action in Action]
    row = TableRow(
        *key,
        budget=arm.budget.mean_cost if arm.budget else None,
        deterministic=arm.deterministic,
        n_seeds=len(arm.seeds),
        n_streams=len(tokens),
        n_chunks=len(arm.chunks.n_tokens),
        n_tokens=int(arm.chunks.n_tokens.sum()),
        loss=mean.value,
        ci=sampling.interval(mean),
        seed_ci=t_interval(seed_losses, sampling.confidence),
        perplexity=math.exp(mean.value),
        bits_per_byte=_bits_per_byte(arm),
        delta_vs_skip=skip.delta if skip else None,
        delta_seed_ci=skip.seed_interval if skip else None,
        delta_iqm=skip.iqm if skip else None,
        p_improvement=skip.p_improvement if skip else None,
        gain_slope=skip.slope if skip else None,
        delta_vs_plain=plain.delta if plain else None,
        delta_vs_full=context,
        delta_vs_random=random,
        delta_vs_update_1=update,
        delta_vs_fixed_flops=fixed_flops,
        delta_vs_fixed_seconds=fixed_seconds,
        delta_vs_rule=rule,
        best_rule=references.rule.key.method if references.rule else None,
        confirmatory=", ".join(str(one).partition(" vs ")[2] for one in declared) or None,
        update_rate=float((measures["steps"] > 0).mean()),
        share_skip=shares[Action.SKIP],
        share_update_1=shares[Action.UPDATE_1],
        share_update_2=shares[Action.UPDATE_2],
        share_update_4=shares[Action.UPDATE_4],
        rank_gap=_rank_gap(arm),
        cost_nominal=arm.mean_cost,
        cost_flops=arm.mean("flops"),
        cost_seconds=arm.mean("seconds"),
        budget_error=_budget_error(arm, references.baseline),
        recovery_vs_skip=share_over_skip,
        recovery_vs_random=share_over_random,
        note="; ".join(notes),
        run_digest=arm.run_digest[:DIGEST_DIGITS],
        code_digest=arm.code_digest[:DIGEST_DIGITS],
    )
    seeds = [
        SeedRow(
            *key,
            seed=seed,
            deterministic=arm.deterministic,
            loss=float(seed_losses[i]),
            delta_vs_skip=_at_seed(skip, arm, seed),
            delta_vs_plain=_at_seed(plain, arm, seed),
            update_rate=float((measures["steps"][i] > 0).mean()),
            cost_nominal=float(measures["cost_nominal"][i].mean()),
            cost_flops=float(measures["flops"][i].mean()),
            cost_seconds=float(measures["seconds"][i].mean()),
            run_digest=arm.run_digests[i][:DIGEST_DIGITS],
        )
        for i, seed in enumerate(arm.seeds)
    ]
    return row, seeds


def _reference_rows(arm: Arm, references: References, sampling: StreamSampling) -> list[ReferenceRow]:
    """Return the exact references of a policy; fixed schedules have no budget to compare at."""
    if arm.budget is None:
        return []
    rows = []
    for reference in references.exact.values():
        found = difference(arm, reference.arm, sampling)
        rows.append(
            ReferenceRow(
                model=arm.key.model,
                fast_weights=arm.key.fast_weights,
                method=arm.key.method,
                corpus=arm.key.corpus,
                budget=arm.budget.mean_cost,
                reference=reference.name,
                loss=reference.arm.mean_loss,
                delta=found.delta if found else None,
                p_swap=reference.p,
                n_sequences=reference.sequences,
                beam_width=reference.beam_width,
                n_seeds=len(arm.seeds),
                n_streams=len(arm.tokens),
            )
        )
    return rows


def _at_seed(found: Difference | None, arm: Arm, seed: int) -> float | None:
    if found is None:
        return None
    # The single run of a deterministic arm is compared with the mean of a reference that has seeds.
    return found.delta.value if arm.deterministic else found.by_seed.get(seed)


def _bits_per_byte(arm: Arm) -> float:
    n_bytes = float(arm.chunks.n_bytes.sum())
    if n_bytes <= 0:
        raise PonderTTTError(
            f"{arm.key}: its scored tokens have no bytes, so there are no bits per byte; rebuild its chunks"
        )
    return float(arm.nats.mean(axis=0).sum() / math.log(2) / n_bytes)


def _comparable(arm: Arm, random: Arm | None, notes: list[str]) -> bool:
    """Return whether random decisions cost what the arm costs; an arm that misses its budget gets a note."""
    if random is None:
        return False
    if costs_the_same(arm, random):
        return True
    if arm.budget:
        notes.append(
            f"no delta_vs_random: costs {arm.mean_cost:.2f} per chunk, {random.key.method} {random.mean_cost:.2f}"
        )
    return False


def _budget_error(arm: Arm, baseline: Arm | None) -> float | None:
    """Return the mean cost divided by the budget, minus one, in the unit of the budget."""
    if arm.budget is None:
        return None
    if arm.budget.unit == "flops":
        if baseline is None:
            return None
        spent = arm.mean("flops") / baseline.mean("flops")
    else:
        spent = arm.mean_cost
    return spent / arm.budget.mean_cost - 1


def _rank_gap(arm: Arm) -> float | None:
    """Return the gap of a signal's ranks to uniform ones; ranks of random decisions are draws, not a signal's."""
    rank = arm.measures["gate_rank"]
    known = rank[np.isfinite(rank)]
    return uniform_gap(known) if len(known) and arm.name.is_calibrated else None


def _provenance(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what made the records: the distinct values over all runs, and the first and last time."""
    times = sorted(run.made_by["time_utc"] for run in runs)
    return {
        **{
            name: sorted({str(run.made_by[name]) for run in runs})
            for name in ("git_commit", "python", "machine")
        },
        "packages": sorted({f"{name} {v}" for run in runs for name, v in run.made_by["packages"].items()}),
        "stage_digest": sorted({run.code_digest for run in runs}),
        "n_runs": len(runs),
        "first_time_utc": times[0],
        "last_time_utc": times[-1],
    }
