"""``results/paper_table.csv`` and the files beside it: every number in them is computed from records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.names import CALIBRATED_METHODS, split_method
from ponderttt.reporting.numbers.arms import Arm, Run, load_arms
from ponderttt.reporting.numbers.comparisons import Difference, difference, mean_cost
from ponderttt.reporting.numbers.frontier import frontier_rows
from ponderttt.reporting.numbers.references import control_of, costs_the_same, recoveries, references_of
from ponderttt.reporting.numbers.rows import (
    FRONTIER,
    SIGNALS,
    FrontierRow,
    SeedRow,
    SignalRow,
    TableRow,
    write_rows,
)
from ponderttt.reporting.numbers.signals import signal_rows
from ponderttt.reporting.numbers.statistics import (
    Interval,
    StreamResamples,
    named_generator,
    t_interval,
    uniform_gap,
)
from ponderttt.settings.mapping import as_mapping
from ponderttt.settings.statistics import StatisticsConfig

#: Hex digits of a digest in a cell.
DIGEST_DIGITS = 16


def write_table(
    run_folders: Sequence[Path | str],
    expected_code: str | None,
    statistics: StatisticsConfig,
    output_table: Path | str,
    output_seeds: Path | str,
    command: str,
    *,
    control_corpora: Mapping[str, str] | None = None,
    vocabularies: Mapping[str, int] | None = None,
) -> list[TableRow]:
    """Compute the table and write it, its seeds, ``frontier.csv``, ``signals.csv`` and their manifest.

    Prints n for every row.

    Args:
        run_folders: every ``results/runs/{corpus}/{model}/{fast_weights}/{method}/seed-{seed}`` that the grid demands.
        expected_code: the stage digest that all records must carry; ``None`` accepts any, but one per arm.
        statistics: bootstrap samples, confidence and seed; with ``allow_missing``, the table is made of the runs that exist,
            and the manifest and the guide list the others.
        output_table: ``results/paper_table.csv``.
        output_seeds: ``results/seeds.csv``, in the same folder.
        command: what remakes the table, for its manifest and the reading guide.
        control_corpora: corpus → kind, of those in which nothing or everything can be learned; figures leave them out.
        vocabularies: model → number of its tokens, for control corpora.

    Raises:
        PonderTTTError: see :func:`build_table`; nothing is written then.
        ValueError: there are control corpora, and no vocabularies.
    """
    if control_corpora and not vocabularies:
        raise ValueError("control corpora are judged by the sizes of the models' vocabularies: give both")
    table = build_table([Path(folder) for folder in run_folders], expected_code, statistics)
    beside = Path(output_table).parent
    files: dict[Path, tuple[type, Sequence[Any]]] = {
        Path(output_table): (TableRow, table.rows),
        Path(output_seeds): (SeedRow, table.seeds),
        beside / FRONTIER: (FrontierRow, table.frontier),
        beside / SIGNALS: (SignalRow, table.signals),
    }
    facts = {
        **table.facts,
        "control_corpora": dict(control_corpora or {}),
        "vocabularies": dict(vocabularies or {}),
        "command": command,
    }
    write_rows(files, facts)
    for row in table.rows:
        print(
            f"{row.corpus} {row.model} {row.label} ({row.protocol}): "
            f"{row.n_seeds} {'run, deterministic' if row.deterministic else 'seeds'}, "
            f"{row.n_streams} streams, {row.n_chunks} chunks, {row.n_tokens:,} tokens"
        )
    return table.rows


class Table(NamedTuple):
    """The rows of every file of numbers, and the facts for their manifest."""

    rows: list[TableRow]
    seeds: list[SeedRow]
    frontier: list[FrontierRow]
    signals: list[SignalRow]
    facts: dict[str, Any]


def build_table(
    run_folders: Sequence[Path], expected_code: str | None, statistics: StatisticsConfig
) -> Table:
    """Compute every number of the results folder.

    Raises:
        PonderTTTError: a run is missing or given twice, its records come from another version of the code, hold a
            value that is not finite or a chunk twice, or two arms that are compared scored different chunks.
    """
    folders = [Path(folder) for folder in run_folders]
    arms, runs, missing = load_arms(folders, expected_code, allow_missing=statistics.allow_missing)
    rows, seed_rows = [], []
    resamples: dict[tuple[str, int], StreamResamples] = {}
    for arm in arms:
        # One resampling per corpus, so that every difference within it is paired.
        where = (arm.key.corpus, len(arm.chunks.streams))
        if where not in resamples:
            generator = named_generator(statistics.seed, "streams", arm.key.corpus)
            resamples[where] = StreamResamples.draw(where[1], statistics.bootstrap_samples, generator)
        row, seeds = _row(arm, arms, resamples[where], statistics.confidence)
        rows.append(row)
        seed_rows.extend(seeds)
    facts = {
        "statistics": as_mapping(statistics),
        "missing": [str(folder) for folder in missing],
        "records": _provenance(runs),
    }
    signals = signal_rows(arms, resamples, statistics.confidence)
    return Table(rows, seed_rows, frontier_rows(arms, resamples, statistics.confidence), signals, facts)


def _row(
    arm: Arm, arms: Sequence[Arm], resamples: StreamResamples, confidence: float
) -> tuple[TableRow, list[SeedRow]]:
    key, chunks, measures = arm.key, arm.chunks, arm.measures
    tokens = chunks.per_stream(chunks.n_tokens.astype(np.float64))
    nats = chunks.per_stream(measures["loss"] * chunks.n_tokens)
    seed_losses = nats.sum(axis=1) / tokens.sum()
    loss = float(nats.mean(axis=0).sum() / tokens.sum())
    notes = [] if len(tokens) > 1 else ["no interval over streams: there is one stream"]
    if 1 < len(tokens) < 4:
        notes.append(f"no interquartile mean: {len(tokens)} streams, it needs at least 4")

    def versus(reference: Arm | None, missing: str | None = None) -> Difference | None:
        if reference is None and missing and key.protocol == "score_first":
            notes.append(f"no {missing} arm to compare with")
        found = difference(arm, reference, resamples, confidence) if reference else None
        if reference and found is None:
            notes.append(f"no seed in common with {reference.key.fast_weights} {reference.key.method}")
        return found

    if key.protocol != "score_first":
        notes.append(f"{key.protocol} never shares a comparison with score_first")
    references = references_of(arm, arms)
    skip = versus(references.control, " ".join(control_of(key.fast_weights)))
    plain = skip if references.plain is references.control else versus(references.plain, "plain")
    context = versus(references.context_1)
    random = versus(references.random if _comparable(arm, references.random, notes) else None)
    update = versus(references.update_1)
    rule = versus(references.rule)
    fixed = {name: versus(getattr(references, f"fixed_{name}")) for name in ("flops", "seconds")}
    from_skip, from_random = recoveries(arm, references)
    notes.extend(dict.fromkeys(r.note for r in (from_skip, from_random) if r.note))
    # A mapping, since intervals fill two columns each.
    cells: dict[str, Any] = {
        **key._asdict(),
        "budget": arm.budget.mean_cost if arm.budget else None,
        "deterministic": arm.deterministic,
        "n_seeds": len(arm.seeds),
        "n_streams": len(tokens),
        "n_chunks": len(chunks.n_tokens),
        "n_tokens": int(chunks.n_tokens.sum()),
        "loss": loss,
        **_ends("", resamples.interval(nats.mean(axis=0), tokens, confidence)),
        **_ends("seed_", t_interval(seed_losses, confidence)),
        "perplexity": math.exp(loss),
        "bits_per_byte": _bits_per_byte(arm, nats),
        "delta_vs_skip": skip.delta if skip else None,
        **_ends("delta_", skip.interval if skip else None),
        **_ends("delta_seed_", skip.seed_interval if skip else None),
        "delta_iqm": skip.iqm if skip else None,
        "p_improvement": skip.p_improvement if skip else None,
        "gain_slope": skip.slope if skip else None,
        **_ends("gain_slope_", skip.slope_interval if skip else None),
        "delta_vs_plain": plain.delta if plain else None,
        **_ends("delta_vs_plain_", plain.interval if plain else None),
        "delta_vs_context_1": context.delta if context else None,
        **_ends("delta_vs_context_1_", context.interval if context else None),
        "delta_vs_random": random.delta if random else None,
        **_ends("delta_vs_random_", random.interval if random else None),
        "delta_vs_update_1": update.delta if update else None,
        **_ends("delta_vs_update_1_", update.interval if update else None),
        **_against_fixed(fixed),
        "delta_vs_rule": rule.delta if rule else None,
        **_ends("delta_vs_rule_", rule.interval if rule else None),
        "best_rule": references.rule.key.method if references.rule else None,
        "update_rate": float((measures["steps"] > 0).mean()),
        **{f"share_{action.name.lower()}": float((measures["action"] == action).mean()) for action in Action},
        "rank_gap": _rank_gap(arm),
        "cost_nominal": float(measures["cost_nominal"].mean()),
        "cost_flops": float(measures["flops"].mean()),
        "cost_seconds": float(measures["seconds"].mean()),
        "budget_error": _budget_error(arm, references.control),
        "recovery_vs_skip": from_skip.share,
        "recovery_vs_random": from_random.share,
        "note": "; ".join(notes),
        "run_digest": arm.run_digest[:DIGEST_DIGITS],
        "code_digest": arm.code_digest[:DIGEST_DIGITS],
    }
    seeds = [
        SeedRow(
            *key,
            seed=seed,
            deterministic=arm.deterministic,
            loss=float(seed_losses[i]),
            delta_vs_skip=_of_seed(skip, arm, seed),
            delta_vs_plain=_of_seed(plain, arm, seed),
            update_rate=float((measures["steps"][i] > 0).mean()),
            cost_nominal=float(measures["cost_nominal"][i].mean()),
            cost_flops=float(measures["flops"][i].mean()),
            cost_seconds=float(measures["seconds"][i].mean()),
            run_digest=arm.run_digests[i][:DIGEST_DIGITS],
        )
        for i, seed in enumerate(arm.seeds)
    ]
    return TableRow(**cells), seeds


def _of_seed(found: Difference | None, arm: Arm, seed: int) -> float | None:
    if found is None:
        return None
    # The one run of a deterministic arm is compared with the mean of a reference that has seeds.
    return found.delta if arm.deterministic else found.by_seed.get(seed)


def _ends(prefix: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{prefix}ci_low": low, f"{prefix}ci_high": high}


def _bits_per_byte(arm: Arm, nats: Float[np.ndarray, "N S"]) -> float:
    n_bytes = float(arm.chunks.n_bytes.sum())
    if n_bytes <= 0:
        raise PonderTTTError(
            f"{arm.key}: its scored tokens have no bytes, so there are no bits per byte; rebuild its chunks"
        )
    return float(nats.mean(axis=0).sum() / math.log(2) / n_bytes)


def _comparable(arm: Arm, random: Arm | None, notes: list[str]) -> bool:
    """Whether random decisions cost what the arm costs; a budgeted arm that misses its budget is told so."""
    if random is None:
        return False
    if costs_the_same(arm, random):
        return True
    if arm.budget:
        notes.append(
            f"no delta_vs_random: costs {mean_cost(arm):.2f} per chunk, {random.key.method} {mean_cost(random):.2f}"
        )
    return False


def _against_fixed(found: Mapping[str, Difference | None]) -> dict[str, float | None]:
    cells: dict[str, float | None] = {}
    for name, fixed in found.items():
        cells[f"delta_vs_fixed_{name}"] = fixed.delta if fixed else None
        cells |= _ends(f"delta_vs_fixed_{name}_", fixed.interval if fixed else None)
    return cells


def _budget_error(arm: Arm, control: Arm | None) -> float | None:
    """Achieved mean cost over the budget, minus one, in the budget's own unit."""
    if arm.budget is None:
        return None
    if arm.budget.unit == "flops":
        if control is None:
            return None
        spent = float(arm.measures["flops"].mean() / control.measures["flops"].mean())
    else:
        spent = mean_cost(arm)
    return spent / arm.budget.mean_cost - 1


def _rank_gap(arm: Arm) -> float | None:
    """Of the ranks of a signal; those of random decisions are draws."""
    rank = arm.measures["gate_rank"]
    known = rank[np.isfinite(rank)]
    if not len(known) or split_method(arm.key.method)[0] not in CALIBRATED_METHODS:
        return None
    return uniform_gap(known)


def _provenance(runs: Sequence[Run]) -> dict[str, Any]:
    """What made the records, over all runs: distinct values, and the first and last time."""
    times = sorted(run.made_by["time_utc"] for run in runs)
    distinct = {
        name: sorted({str(run.made_by[name]) for run in runs}) for name in ("git_commit", "python", "machine")
    }
    packages = sorted({f"{name} {v}" for run in runs for name, v in run.made_by["packages"].items()})
    codes = sorted({run.code_digest for run in runs})
    return {**distinct, "packages": packages, "stage_digest": codes, "n_runs": len(runs)} | {
        "first_time_utc": times[0],
        "last_time_utc": times[-1],
    }
