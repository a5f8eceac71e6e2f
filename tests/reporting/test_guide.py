"""The guide beside the table: it says which rule beats what and by how much, or plainly that none does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ponderttt.reporting.guide.control_statements import control_corpora, wrong_lessons
from ponderttt.reporting.guide.guide import write_reading_guide
from ponderttt.reporting.guide.rule_statements import claim, rules_of
from ponderttt.reporting.guide.update_statements import verdict
from ponderttt.reporting.numbers.rows import TableRow, read_frontier, read_table
from ponderttt.reporting.numbers.tables import write_table
from ponderttt.settings.statistics import StatisticsConfig
from reporting_worlds import CODE, CONTROL_CORPORA, CORPUS, VOCABULARIES, rules_grid

STATISTICS = StatisticsConfig(bootstrap_samples=500)


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[TableRow]]:
    """The guide to a grid in which ``entropy`` knows when to update memory, and updates of LoRA do harm."""
    root = tmp_path_factory.mktemp("guide")
    folders = rules_grid(root, {"memory": 1.0, "lora": -0.1}, seeds=1)
    table = root / "paper_table.csv"
    write_table(
        folders,
        CODE,
        STATISTICS,
        table,
        root / "seeds.csv",
        "snakemake",
        control_corpora=CONTROL_CORPORA,
        vocabularies=VOCABULARIES,
    )
    write_reading_guide(table, root / "README.md")
    text = (root / "README.md").read_text()
    areas = {
        (row.fast_weights, row.policy): row
        for row in read_frontier(root / "frontier.csv")
        if (row.corpus, row.cost_measure) == (CORPUS, "flops")
    }
    area = areas["memory", "entropy"]
    assert f"`entropy` {area.area_vs_random:+.4f} [{area.area_vs_random_ci_low:+.4f}," in text
    return text, read_table(table)


def section(text: str, title: str) -> str:
    """From a heading to the next one."""
    start = text.index(f"# {title}\n")
    end = text.find("\n#", start + 1)
    return text[start:end]


def test_a_rule_that_beats_random_decisions_is_named_with_its_interval(
    guide: tuple[str, list[TableRow]],
) -> None:
    text, rows = guide
    said = section(text, "memory: rules against random decisions and fixed schedules")
    rules = rules_of(rows_of(rows), "memory")
    better = [row for row in rules if row.delta_vs_random_ci_high and row.delta_vs_random_ci_high < 0]
    # At the budget 1.5 the difference is larger still, and its interval holds zero.
    row = min(better, key=lambda row: row.delta_vs_random or 0.0)
    assert row.method == "entropy"
    assert all("entropy" in row.method or "loss" in row.method for row in better)
    expected = f"`{row.method}` {row.delta_vs_random:+.4f} [{row.delta_vs_random_ci_low:+.4f}, {row.delta_vs_random_ci_high:+.4f}]"
    line = next(line for line in said.splitlines() if "Better than random decisions" in line)
    assert all(f"`{row.method}`" in line for row in better)
    assert expected in line
    assert expected in section(text, f"In short: tiny on {CORPUS}")
    assert "Largest miss of a budget: 0.0 %." in said
    assert "What a decision could win" in said


def test_where_no_rule_is_better_the_guide_says_so(guide: tuple[str, list[TableRow]]) -> None:
    text, rows = guide
    said = section(text, "lora: rules against random decisions and fixed schedules")
    rules = rules_of(rows_of(rows), "lora")
    # UPDATE_1 does harm, so SKIP is the best fixed schedule at any cost.
    assert all(row.delta_vs_fixed_flops_ci_low and row.delta_vs_fixed_flops_ci_low > 0 for row in rules)
    assert f"**Nothing is better than fixed schedules at equal counted FLOPs** (0 of {len(rules)}" in said
    nearest = min(rules, key=lambda row: row.delta_vs_fixed_flops or 0.0)
    assert f"nearest is `{nearest.method}` {nearest.delta_vs_fixed_flops:+.4f}" in said


def rows_of(rows: list[TableRow]) -> list[TableRow]:
    return [row for row in rows if row.corpus == CORPUS]


def test_a_claim_counts_what_would_come_by_chance(guide: tuple[str, list[TableRow]]) -> None:
    rules = rules_of(rows_of(guide[1]), "memory")[:2]
    rows = [
        replace(
            row,
            delta_vs_random=value,
            delta_vs_random_ci_low=value - 0.1,
            delta_vs_random_ci_high=value + 0.1,
        )
        for row, value in zip(rules, (-0.2, 0.3), strict=True)
    ]
    said = claim(rows, "delta_vs_random", "chance", 0.9)
    first, second = (row.method for row in rows)
    assert said == (
        f"**Better than chance** (1 of 2 comparisons; about 0.1 would by chance): `{first}` -0.2000 [-0.3000, -0.1000] "
        f"nats per token. Clearly worse: `{second}` +0.3000 [+0.2000, +0.4000]."
    )
    without = [replace(row, delta_vs_random_ci_low=None) for row in rows]
    assert claim(without, "delta_vs_random", "chance", 0.9).startswith("Against chance: not known")


def test_control_corpora_stand_apart_and_surprises_are_shown(guide: tuple[str, list[TableRow]]) -> None:
    text, rows = guide
    assert "## In short: tiny on random-tokens" not in text
    random_tokens = section(text, "random-tokens")
    assert "| tiny | memory | `update_1` |" in random_tokens
    assert "**no**" not in random_tokens
    # Updates of LoRA do harm in this world, even where all repeats.
    repeated = section(text, "repeated").splitlines()
    assert all(line.endswith("| yes |") for line in repeated if "| memory |" in line)
    assert all(line.endswith("| **no** |") for line in repeated if "| lora |" in line)
    lines = list(control_corpora(rows_of(rows), CONTROL_CORPORA, VOCABULARIES))
    assert lines == []


def test_below_the_logarithm_of_the_vocabulary_something_has_leaked(
    guide: tuple[str, list[TableRow]],
) -> None:
    random_tokens = [row for row in guide[1] if row.corpus == "random-tokens" and row.update_rate]
    # Less sure of itself, an arm gains on random tokens without knowing one of them; only a leak goes below ln 8 = 2.079.
    flatter = [replace(row, delta_ci_low=-0.2, delta_ci_high=-0.1) for row in random_tokens]
    leaked = [replace(row, loss=2.0, ci_low=1.9, ci_high=2.07) for row in random_tokens]
    for changed, said in ((flatter, "yes"), (leaked, "**no**")):
        lines = list(control_corpora(changed, CONTROL_CORPORA, VOCABULARIES))
        assert sum(line.endswith(f"| {said} |") for line in lines) == len(random_tokens)


def test_wrong_lessons_are_held_against_the_right_one(guide: tuple[str, list[TableRow]]) -> None:
    text, rows = guide
    said = section(text, "Learning from the wrong thing").splitlines()
    memory, lora = (
        next(line for line in said if line.startswith(f"| {name} |")) for name in ("memory", "lora")
    )
    by_method = {row.method: row for row in rows_of(rows) if row.fast_weights == "memory"}
    for name in ("shuffled", "sign_flipped", "other_stream"):
        row = by_method[name]
        assert row.delta_vs_update_1 == pytest.approx(row.loss - by_method["update_1"].loss)
        assert f"`{name}` yes ({row.delta_vs_update_1:+.4f} [" in memory
    assert by_method["entropy"].delta_vs_update_1 is None
    assert lora.endswith("| `update_1` has no gain that could vanish |")


def test_a_wrong_lesson_that_helps_is_shown(guide: tuple[str, list[TableRow]]) -> None:
    better = {"delta_vs_update_1": -0.1, "delta_vs_update_1_ci_low": -0.2, "delta_vs_update_1_ci_high": -0.05}
    gains = {"delta_vs_skip": -0.1, "delta_ci_low": -0.2, "delta_ci_high": -0.05}
    changes = {"shuffled": better, "sign_flipped": gains}
    rows = [
        replace(row, **changes.get(row.method, {}))
        for row in rows_of(guide[1])
        if row.fast_weights == "memory"
    ]
    (line,) = (line for line in wrong_lessons(rows) if line.startswith("| memory"))
    assert "`shuffled` **no, better** (-0.1000 [-0.2000, -0.0500])" in line
    assert "`sign_flipped` yes, **yet it gains**" in line


def test_the_guide_names_the_front_the_signals_and_every_file(guide: tuple[str, list[TableRow]]) -> None:
    text, _ = guide
    front = section(text, "Who is beaten by nobody that costs less")
    assert "memory `entropy`" in front
    assert "oracle" not in front
    signals = section(text, "memory: which signals predict the gain of an update")
    assert "strongest: `entropy_mean` +" in signals
    assert "of 64 features" in signals
    for name in ("paper_table.csv", "seeds.csv", "frontier.csv", "signals.csv"):
        assert f"* `{name}`: " in section(text + "\n#", "Where this comes from")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.2, -0.1, "helped"),
        (0.1, 0.2, "did harm"),
        (-0.1, 0.1, "no clear difference"),
        (0.0, 0.0, "no clear difference"),
        (None, None, "not known (no interval)"),
    ],
)
def test_a_verdict_needs_an_interval_that_leaves_out_zero(
    low: float | None, high: float | None, said: str
) -> None:
    assert verdict(low, high) == said
