"""The guide beside the table: which policy beats which reference and by how much, or that none does."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ponderttt.reporting.guide.claims import ClaimRule, confirmatory_section, shown
from ponderttt.reporting.guide.control_statements import control_corpora, wrong_lessons
from ponderttt.reporting.guide.guide import write_reading_guide
from ponderttt.reporting.guide.reference_statements import control_of, reference_section
from ponderttt.reporting.guide.rule_statements import claim, in_short, policies_of, policy_section
from ponderttt.reporting.guide.update_statements import what_helped, without_gain
from ponderttt.reporting.numbers.columns import Estimate, dtypes, rows_of
from ponderttt.reporting.numbers.results import FILES, read_results
from ponderttt.reporting.numbers.rows import ConfirmatoryRow, FrontierRow, ReferenceRow, TableRow
from ponderttt.reporting.numbers.statistics import Interval
from ponderttt.reporting.numbers.tables import write_table
from ponderttt.settings.statistics import StatisticsConfig
from reporting_worlds import CODE, CONTROL_CORPORA, CORPUS, VOCABULARIES, rules_grid, value

STATISTICS = StatisticsConfig(
    bootstrap_samples=500,
    confirmatory=("memory update_1 vs skip", "memory entropy vs random", "lora update_1 vs skip"),
)
#: Of the held-out corpus.
RULE = ClaimRule(0.95, 8)


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[TableRow]]:
    """The guide to a grid in which ``entropy`` knows when to update memory, and updates of LoRA hurt."""
    root = tmp_path_factory.mktemp("guide")
    folders = rules_grid(root, {"memory": 1.0, "lora": -0.1}, seeds=1)
    table = root / "paper_table.csv"
    write_table(
        folders,
        CODE,
        STATISTICS,
        root,
        "snakemake",
        control_corpora=CONTROL_CORPORA,
        vocabularies=VOCABULARIES,
    )
    write_reading_guide(table, root / "README.md")
    text = (root / "README.md").read_text()
    results = read_results(table)
    areas = {
        (row.fast_weights, row.policy): row.area_vs_random
        for row in rows_of(FrontierRow, results.frontier)
        if (row.corpus, row.cost_measure) == (CORPUS, "flops")
    }
    assert f"`entropy` {shown(areas['memory', 'entropy'])}" in text
    return text, rows_of(TableRow, results.table)


def section(text: str, title: str) -> str:
    """Return the text from a heading to the next one."""
    start = text.index(f"# {title}\n")
    end = text.find("\n#", start + 1)
    return text[start:end]


def test_a_rule_that_beats_random_decisions_is_named_with_its_interval(
    guide: tuple[str, list[TableRow]],
) -> None:
    text, rows = guide
    said = section(text, "memory: policies against random decisions and fixed schedules")
    rules = policies_of(on_corpus(rows), "memory")
    better = [row for row in rules if RULE.verdict(row.delta_vs_random) == "helped"]
    # At the other budgets the difference is larger, and the intervals hold zero.
    row = min(better, key=lambda row: value(row.delta_vs_random))
    assert row.method == "entropy@5"
    assert all("entropy" in row.method or "loss" in row.method for row in better)
    expected = f"`{row.method}` {shown(row.delta_vs_random)}"
    line = next(line for line in said.splitlines() if "Better than random decisions" in line)
    assert all(f"`{row.method}`" in line for row in better)
    assert expected in line
    assert expected in section(text, f"In short, exploratory: tiny on {CORPUS}")
    assert "Largest deviation from a budget: 0.0 %." in said
    assert "Headroom (oracles against random decisions with the same budget): `greedy_oracle` " in said


def test_where_no_rule_is_better_the_guide_says_so(guide: tuple[str, list[TableRow]]) -> None:
    text, rows = guide
    said = section(text, "lora: policies against random decisions and fixed schedules")
    rules = policies_of(on_corpus(rows), "lora")
    # UPDATE_1 hurts, so SKIP is the best fixed schedule at any cost.
    assert all(value(row.delta_vs_fixed_flops) > 0 for row in rules)
    assert sum(RULE.verdict(row.delta_vs_fixed_flops) == "hurt" for row in rules) > len(rules) / 2
    assert (
        f"**Nothing is clearly better than fixed schedules at equal counted FLOPs** (0 of {len(rules)}"
        in said
    )
    lowest = min(rules, key=lambda row: value(row.delta_vs_fixed_flops))
    assert f"The lowest difference is `{lowest.method}` {shown(lowest.delta_vs_fixed_flops)}." in said


def on_corpus(rows: list[TableRow]) -> list[TableRow]:
    return [row for row in rows if row.corpus == CORPUS]


def test_a_claim_says_how_many_are_expected_by_chance(guide: tuple[str, list[TableRow]]) -> None:
    rules = policies_of(on_corpus(guide[1]), "memory")[:2]
    rows = [
        replace(row, delta_vs_random=Estimate(delta, delta - 0.1, delta + 0.1, p))
        for row, delta, p in zip(rules, (-0.2, 0.3), (0.03125, 0.05), strict=True)
    ]
    # Of six streams, the only p of at most 0.05 is 2/64: half of it, twice.
    said = claim(rows, "delta_vs_random", "chance", ClaimRule(0.95, 6))
    first, second = (row.method for row in rows)
    assert said == (
        f"**Better than chance** (1 of 2 comparisons; at most 0.031 expected by chance): `{first}` -0.2000 [-0.3000, -0.1000], "
        f"p = 0.031. Clearly worse: `{second}` +0.3000 [+0.2000, +0.4000], p = 0.05."
    )
    without = [replace(row, delta_vs_random=Estimate(-0.2)) for row in rows]
    assert claim(without, "delta_vs_random", "chance", RULE).startswith("Against chance: unknown")


def test_five_streams_carry_no_claim(guide: tuple[str, list[TableRow]]) -> None:
    memory = [row for row in on_corpus(guide[1]) if row.fast_weights == "memory"]
    rows = [replace(row, n_streams=5, delta_seed_ci=Interval(-0.2, -0.1), n_seeds=2) for row in memory]
    few = ClaimRule(0.95, 5)
    said = claim(policies_of(rows, "memory"), "delta_vs_random", "chance", few)
    assert said.startswith("Against chance, the lowest difference is `")
    assert said.endswith("(n = 5 streams: too few for a claim).")
    said = "\n".join(
        [
            *in_short(rows, few),
            *what_helped(rows, "memory", few),
            *policy_section(rows, "memory", few),
            *wrong_lessons(rows, few),
            *without_gain(rows, few),
        ]
    )
    assert f"with 0 updates: {shown(rows[1].delta_vs_skip)}. Over 2 seeds: [-0.2000" in said
    for claimed in ("helped", "hurt", "clearly", "**Better", "grows", "Clearly worse", "chance)"):
        assert claimed not in said


def test_control_corpora_have_a_section_that_shows_surprises(guide: tuple[str, list[TableRow]]) -> None:
    text, rows = guide
    assert "tiny on random-tokens" not in text
    random_tokens = section(text, "random-tokens")
    assert "| tiny | memory | `update_1` |" in random_tokens
    assert "**no**" not in random_tokens
    # Updates of LoRA hurt in this world, even on repeats.
    repeated = section(text, "repeated").splitlines()
    assert all(line.endswith("| yes |") for line in repeated if "| memory |" in line)
    assert all(line.endswith("| **no** |") for line in repeated if "| lora |" in line)
    lines = list(control_corpora(on_corpus(rows), CONTROL_CORPORA, VOCABULARIES))
    assert lines == []


def test_a_loss_below_the_logarithm_of_the_vocabulary_is_a_leak(
    guide: tuple[str, list[TableRow]],
) -> None:
    random_tokens = [row for row in guide[1] if row.corpus == "random-tokens" and row.update_rate]
    # With less confidence, an arm gains on random tokens without knowing one of them; only a leak goes below ln 8 = 2.079.
    flatter = [replace(row, delta_vs_skip=Estimate(-0.15, -0.2, -0.1)) for row in random_tokens]
    leaked = [replace(row, loss=2.0, ci=Interval(1.9, 2.07)) for row in random_tokens]
    for changed, said in ((flatter, "yes"), (leaked, "**no**")):
        lines = list(control_corpora(changed, CONTROL_CORPORA, VOCABULARIES))
        assert sum(line.endswith(f"| {said} |") for line in lines) == len(random_tokens)


def test_wrong_lessons_are_compared_with_the_right_one(guide: tuple[str, list[TableRow]]) -> None:
    text, rows = guide
    said = section(text, "Controls: wrong lessons").splitlines()
    memory, lora = (
        next(line for line in said if line.startswith(f"| {name} |")) for name in ("memory", "lora")
    )
    by_method = {row.method: row for row in on_corpus(rows) if row.fast_weights == "memory"}
    for name in ("shuffled", "sign_flipped", "other_stream"):
        row = by_method[name]
        assert value(row.delta_vs_update_1) == pytest.approx(row.loss - by_method["update_1"].loss)
        assert f"`{name}` yes ({shown(row.delta_vs_update_1)})" in memory
    assert by_method["entropy"].delta_vs_update_1 is None
    assert lora.endswith("| `update_1` has no clear gain to lose |")


def test_a_wrong_lesson_that_helps_is_shown(guide: tuple[str, list[TableRow]]) -> None:
    gain = Estimate(-0.1, -0.2, -0.05, 0.01)
    changes = {"shuffled": {"delta_vs_update_1": gain}, "sign_flipped": {"delta_vs_skip": gain}}
    rows = [
        replace(row, **changes.get(row.method, {}))
        for row in on_corpus(guide[1])
        if row.fast_weights == "memory"
    ]
    (line,) = (line for line in wrong_lessons(rows, RULE) if line.startswith("| memory"))
    assert "`shuffled` **no, better** (-0.1000 [-0.2000, -0.0500], p = 0.01)" in line
    assert "`sign_flipped` yes, **yet it gains**" in line


def test_the_guide_names_the_front_the_signals_and_every_file(guide: tuple[str, list[TableRow]]) -> None:
    text, _ = guide
    front = section(text, "Pareto front: loss against cost")
    assert "memory `entropy`" in front
    assert "oracle" not in front
    signals = section(text, "memory: signals that predict the gain of an update")
    assert "Strongest: `entropy_mean` +" in signals
    assert "of 64 features" in signals
    for name in ("paper_table.csv", "seeds.csv", "frontier.csv", "signals.csv"):
        assert f"* `{name}`: " in section(text + "\n#", "Provenance")


def test_the_guide_documents_every_column_of_every_file(guide: tuple[str, list[TableRow]]) -> None:
    for name, kind in FILES.values():
        lines = section(guide[0], f"Columns of `{name}`").splitlines()
        cells = [line.split(" | ") for line in lines if line.startswith("| `")]
        assert [column for names, *_ in cells for column in re.findall("`(.*?)`", names)] == list(
            dtypes(kind)
        )
        assert all(len(meaning.strip(" |")) > 5 for _, meaning in cells)
    assert "95 % interval over streams" in guide[0]


@pytest.mark.parametrize(
    ("low", "high", "p", "said"),
    [
        (-0.2, -0.1, 0.05, "helped"),
        (0.1, 0.2, 0.01, "hurt"),
        (-0.2, -0.1, 0.051, "no clear difference"),
        (-0.1, 0.1, 0.01, "no clear difference"),
        (0.0, 0.0, 1.0, "no clear difference"),
        (None, None, 0.01, "unknown (no interval)"),
    ],
)
def test_a_verdict_needs_an_interval_that_leaves_out_zero_and_a_small_p(
    low: float | None, high: float | None, p: float, said: str
) -> None:
    estimate = Estimate(0.0, low, high, p)
    assert RULE.verdict(estimate) == said
    assert ClaimRule(0.95, 6).verdict(estimate) == said
    assert ClaimRule(0.95, 5).verdict(estimate) == "too few streams for a claim"
    assert RULE.verdict(None) == "unknown (no interval)"


def test_declared_comparisons_come_first_with_corrected_p_and_all_else_is_exploratory(
    guide: tuple[str, list[TableRow]],
) -> None:
    text, rows = guide
    said = section(text, "Confirmatory comparisons")
    assert text.index("# Confirmatory comparisons") < text.index("# In short, exploratory")
    assert "corrected for all 3 rows" in said
    by_label = {row.label: row for row in on_corpus(rows)}
    helped = by_label["memory update_1"].delta_vs_skip
    assert f"| memory update_1 vs skip | tiny | {CORPUS} | 8 | {shown(helped)} |" in said
    cells = {line.split(" | ")[0]: line.split(" | ") for line in said.splitlines()}
    assert cells["| memory update_1 vs skip"][-2:] == ["**helped**", "wrong lessons gain less |"]
    assert cells["| lora update_1 vs skip"][-2] == "**hurt**"
    # Twice its p of 2/256 for both of them, once that of the last.
    assert said.count(" | 0.023 | ") == 2
    declared = {row.label: row.confirmatory for row in rows if row.confirmatory}
    assert declared == {"memory update_1": "skip", "memory entropy": "random", "lora update_1": "skip"}
    assert all(row.confirmatory is None for row in rows if row.corpus != CORPUS)
    assert "everything on this page is exploratory" in " ".join(
        confirmatory_section([], 0.95, lambda row, rule: "")
    )


def test_a_declared_gain_that_its_control_has_too_is_said_to(guide: tuple[str, list[TableRow]]) -> None:
    """A wrong lesson explains a gain of updates; the mechanism of budgets without a signal explains one of a rule."""
    rows = on_corpus(guide[1])
    gain = Estimate(-0.1, -0.2, -0.05, 0.01)
    of_updates = ConfirmatoryRow("tiny", CORPUS, "memory", "update_1", "memory", "skip", 1, 8, gain, 0.01)
    assert control_of(of_updates, rows, [], RULE) == "wrong lessons gain less"
    same = Estimate(0.0, -0.1, 0.1, 0.9)
    moved = [replace(row, delta_vs_update_1=same) if row.method == "shuffled" else row for row in rows]
    assert "`shuffled` gain **as much**" in control_of(of_updates, moved, [], RULE)
    of_rule = replace(of_updates, method="entropy", reference_method="random")
    reference = ReferenceRow(
        "tiny", "memory", "entropy", CORPUS, 3.0, "constant_rank", 1.5, same, None, 252, None, 1, 8
    )
    assert control_of(of_rule, rows, [], RULE) == "–"
    assert "gains **as much**" in control_of(of_rule, rows, [reference], RULE)
    assert "gains less" in control_of(of_rule, rows, [replace(reference, delta=gain)], RULE)
    (line,) = (
        line for line in reference_section([reference], "memory", RULE) if line.startswith("| `entropy`")
    )
    assert line == "| `entropy` | 3 | 1.5000: +0.0000 [-0.1000, +0.1000], p = 0.9 |"
    assert not list(reference_section([reference], "lora", RULE))
