"""The rows of the result files: what each column is called and means.

Losses and differences are in nats per token, costs per chunk.  None is an empty cell.  A difference is the arm minus its
reference: below zero, the arm is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated as Doc

from ponderttt.contexts import ALONE, FULL
from ponderttt.names import FastWeightsName, MethodName
from ponderttt.reporting.numbers.columns import Column, Estimate
from ponderttt.reporting.numbers.statistics import Interval
from ponderttt.settings.confirmatory import ArmLabel, Comparison


@dataclass(frozen=True)
class TableRow:
    """One arm on one corpus, a row of ``paper_table.csv``."""

    model: Doc[str, Column("names of the arm; `+full`: the backbone sees its whole stream")]
    fast_weights: str
    method: str
    protocol: str
    corpus: str
    language: str
    budget: Doc[float | None, Column("mean cost per chunk that the arm may spend, in multiples of SKIP's")]
    deterministic: Doc[bool, Column("true: nothing depends on a seed, so there is one run")]
    n_seeds: Doc[
        int, Column("runs; streams, chunks and tokens (with a next token to predict) that each scored")
    ]
    n_streams: int
    n_chunks: int
    n_tokens: int
    loss: Doc[float, Column("nats per token; every token weighs the same")]
    ci: Doc[
        Interval | None,
        Column("{percent} interval over streams; mostly shows how much they differ in difficulty"),
    ]
    seed_ci: Doc[Interval | None, Column("t-interval of the mean loss over seeds, on these streams")]
    perplexity: Doc[float, Column("exp(loss)")]
    bits_per_byte: Doc[float, Column("the same information per byte of source code")]
    delta_vs_skip: Doc[
        Estimate | None,
        Column(
            "loss minus that of the trained adapter with 0 updates (for `none`: the plain backbone), paired by stream; **below "
            "zero is better**. `_p`: exact two-sided p of the sign-flip test over streams, not corrected for the number of "
            "comparisons",
            stem="delta_ci",
            tested=True,
        ),
    ]
    delta_seed_ci: Doc[Interval | None, Column("t-interval of that difference over seeds")]
    delta_iqm: Doc[float | None, Column("interquartile mean of the streams' own differences")]
    p_improvement: Doc[
        float | None, Column("P(lower loss) of a random run on a random stream; 0.5: no difference")
    ]
    gain_slope: Doc[
        Estimate | None,
        Column("growth of the gain over `skip` per chunk of a stream, nats per token", tested=True),
    ]
    delta_vs_plain: Doc[Estimate | None, Column("paired difference to the plain backbone", tested=True)]
    delta_vs_full: Doc[
        Estimate | None,
        Column("paired difference to the backbone with its whole stream as context", tested=True),
    ]
    delta_vs_random: Doc[
        Estimate | None,
        Column(
            "paired difference to random decisions with the same budget (fixed schedules: cost, within 5 %)",
            tested=True,
        ),
    ]
    delta_vs_update_1: Doc[
        Estimate | None,
        Column("controls with a wrong lesson: paired difference to UPDATE_1", tested=True),
    ]
    delta_vs_fixed_flops: Doc[
        Estimate | None,
        Column(
            "paired difference to the best of SKIP, UPDATE_1, UPDATE_2, UPDATE_4 and the schedule at equal counted FLOPs, or at "
            "equal measured seconds (within 1 %, the resolution of the clock); a cost between two of them is reached with one "
            "on some streams and the other on the rest",
            tested=True,
        ),
    ]
    delta_vs_fixed_seconds: Estimate | None
    delta_vs_rule: Doc[
        Estimate | None,
        Column(
            "learned policies: paired difference to the rule with the lowest loss at the same budget, and that rule; it is "
            "chosen on these streams, which favours it",
            tested=True,
        ),
    ]
    best_rule: str | None
    confirmatory: Doc[
        str | None,
        Column(
            "references of the comparisons of this arm that the configuration declares, see `confirmatory.csv`; **every other "
            "difference of this table is exploratory**"
        ),
    ]
    update_rate: Doc[float, Column("fraction of chunks followed by an update; fractions of the four actions")]
    share_skip: float
    share_update_1: float
    share_update_2: float
    share_update_4: float
    rank_gap: Doc[
        float | None, Column("largest gap of a signal's percentile ranks to those on training streams")
    ]
    cost_nominal: Doc[
        float,
        Column(
            "means per chunk: nominal cost (the unit of budgets, SKIP = 1), counted FLOPs, measured seconds"
        ),
    ]
    cost_flops: float
    cost_seconds: float
    budget_error: Doc[
        float | None, Column("mean cost divided by the budget, minus one, in the budget's unit")
    ]
    recovery_vs_skip: Doc[
        Estimate | None,
        Column(
            "fraction of the gain of the best sequences with the same budget that the arm has, over `skip` and over random "
            "decisions; empty where these are not known or the costs do not allow the comparison"
        ),
    ]
    recovery_vs_random: Estimate | None
    note: Doc[str, Column("why a cell is empty, and other warnings")]
    run_digest: Doc[str, Column("digest of the manifests of its records, and of the code that made them")]
    code_digest: str

    @property
    def name(self) -> MethodName:
        """The parsed name of the method."""
        return MethodName.parse(self.method)

    @property
    def label(self) -> str:
        """Name of the arm in figures and sentences."""
        return self.method if self.fast_weights == "none" else f"{self.fast_weights} {self.method}"


@dataclass(frozen=True)
class ConfirmatoryRow:
    """One declared comparison on one held-out corpus, a row of ``confirmatory.csv``."""

    model: Doc[str, Column("backbone and held-out corpus")]
    corpus: str
    fast_weights: Doc[str, Column("the arm")]
    method: str
    reference_fast_weights: Doc[str, Column("the arm that it is compared with")]
    reference_method: str
    n_seeds: Doc[int, Column("seeds that both arms have, and streams")]
    n_streams: int
    difference: Doc[
        Estimate,
        Column(
            "loss of the arm minus loss of its reference, nats per token, paired by stream, with its {percent} interval and the "
            "p value of the sign-flip test; **below zero is better**",
            tested=True,
        ),
    ]
    p_holm: Doc[float, Column("that p value, corrected for all rows of this file (Holm 1979)")]

    @property
    def label(self) -> str:
        """The comparison in the words of the configuration."""
        arm = ArmLabel(self.fast_weights, self.method)
        return str(Comparison(arm, ArmLabel(self.reference_fast_weights, self.reference_method)))


@dataclass(frozen=True)
class SeedRow:
    """One seed of an arm, a row of ``seeds.csv``: the values that the intervals over seeds are made of."""

    model: Doc[str, Column("the arm, as in `paper_table.csv`")]
    fast_weights: str
    method: str
    protocol: str
    corpus: str
    language: str
    seed: Doc[int, Column("seed of the run; a deterministic arm has a single run")]
    deterministic: bool
    loss: Doc[float, Column("values of this seed, as in `paper_table.csv`")]
    delta_vs_skip: float | None
    delta_vs_plain: float | None
    update_rate: float
    cost_nominal: float
    cost_flops: float
    cost_seconds: float
    run_digest: str


@dataclass(frozen=True)
class FrontierRow:
    """One ``score_first`` arm at one measure of cost, a row of ``frontier.csv``."""

    model: Doc[str, Column("the arm's backbone and fast weights")]
    fast_weights: str
    policy: Doc[
        str,
        Column(
            "the line to which the arm belongs: a method at all its budgets; `fixed` for SKIP, UPDATE_1, UPDATE_2, UPDATE_4 and "
            "the schedule; `context` for the backbone"
        ),
    ]
    corpus: Doc[str, Column("held-out corpus")]
    cost_measure: Doc[str, Column("`nominal`, `flops` (counted) or `seconds` (measured)")]
    method: Doc[str, Column("the arm's method and budget, its mean cost per chunk and its loss")]
    budget: float | None
    cost: float
    loss: float
    on_front: Doc[
        bool,
        Column(
            "whether no other arm that can be run for real (no oracle, no wrong lesson) costs less and loses less"
        ),
    ]
    n_costs: Doc[int, Column("number of different costs of the policy; with one, it has no area")]
    range_low: Doc[
        float | None,
        Column("costs of the area: those that the policy, random decisions and fixed schedules all reach"),
    ]
    range_high: float | None
    area: Doc[Estimate | None, Column("mean loss over these costs under the policy's lower envelope")]
    area_vs_random: Doc[
        Estimate | None,
        Column(
            "paired difference of `area` to random decisions and to fixed schedules over the same costs",
            tested=True,
        ),
    ]
    area_vs_fixed: Estimate | None


@dataclass(frozen=True)
class SignalRow:
    """One feature and update of one arm, a row of ``signals.csv``, read along the path of the greedy oracle."""

    model: Doc[str, Column("the arm whose records hold the look-ahead of the oracle")]
    fast_weights: str
    method: str
    corpus: str
    feature: Doc[str, Column("feature of a chunk, and the group that it belongs to")]
    group: str
    action: Doc[str, Column("update after the chunk, whose gain shows at the next chunk")]
    n_seeds: Doc[int, Column("what the correlation is computed from")]
    n_streams: int
    n_chunks: int
    rho: Doc[
        Estimate | None,
        Column(
            "Spearman's rank correlation of the feature with the gain over all chunks, and of ranks within each stream; means "
            "over seeds, intervals over streams; empty where the feature or the gain is constant"
        ),
    ]
    rho_within: Estimate | None


@dataclass(frozen=True)
class ReferenceRow:
    """One policy against one exact reference at its budget, a row of ``references.csv``."""

    model: Doc[str, Column("the policy, as in `paper_table.csv`")]
    fast_weights: str
    method: str
    corpus: str
    budget: Doc[float, Column("mean cost per chunk that policy and reference spend, in multiples of SKIP's")]
    reference: Doc[
        str,
        Column(
            "`random`: mean over all sequences of the budget; `constant_rank`: rank 0.5 at every chunk, no signal; "
            "`best_schedule`: for each stream the sequence that is best on the others of its length; `own_elsewhere`: the "
            "policy's sequences on other streams of the same length; `oracle`: the best sequence of each stream"
        ),
    ]
    loss: Doc[float, Column("its loss, nats per token")]
    delta: Doc[Estimate | None, Column("paired difference: the policy minus the reference", tested=True)]
    p_swap: Doc[
        float | None,
        Column(
            "`own_elsewhere`: share of 10,000 permutations of the policy's sequences among streams of equal length that lose no "
            "more than the policy; near 1, its decisions are not about these streams"
        ),
    ]
    n_sequences: Doc[int, Column("sequences of the stream that has the most")]
    beam_width: Doc[
        float | None, Column("width of the beam that found the sequences; empty if they are all there are")
    ]
    n_seeds: Doc[int, Column("what the difference is computed from")]
    n_streams: int


def find_row(rows: Sequence[TableRow], fast_weights: str, method: str, protocol: str) -> TableRow | None:
    """Return the row of an arm, within one corpus and model; None if there is none."""
    wanted = (fast_weights, method, protocol)
    return next((row for row in rows if (row.fast_weights, row.method, row.protocol) == wanted), None)


def gain_of_training(skip: TableRow) -> Estimate | None:
    """Return the difference of an adapter with 0 updates to the backbone in the same context; None if it is not in the table."""
    known = {ALONE: skip.delta_vs_plain, FULL: skip.delta_vs_full}
    return known.get(FastWeightsName.parse(skip.fast_weights).context)


def decomposition_steps(rows: Sequence[TableRow], fast_weights: str) -> list[tuple[str, TableRow]] | None:
    """Return the steps from the backbone in the same context to the transductive number, each with the row it leads to.

    Returns:
        None if one of the four arms is missing.
    """
    if fast_weights == "none":
        return None
    backbone = MethodName.plain(FastWeightsName.parse(fast_weights).context)
    chain = (
        (f"{backbone}: the backbone", find_row(rows, "none", str(backbone), "score_first")),
        ("(a) training the adapter", find_row(rows, fast_weights, "skip", "score_first")),
        ("(c) test-time training", find_row(rows, fast_weights, "update_1", "score_first")),
        ("(b) leakage", find_row(rows, fast_weights, "transductive", "transductive")),
    )
    steps = [(name, row) for name, row in chain if row is not None]
    return steps if len(steps) == len(chain) else None
