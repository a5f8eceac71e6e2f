"""The frontier and the signals: areas worked by hand, and the features that predict a gain in a known world."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ponderttt.actions import Action
from ponderttt.features.table import FEATURES
from ponderttt.reporting.numbers.columns import frame_of, rows_of
from ponderttt.reporting.numbers.frontier import Span, common_range
from ponderttt.reporting.numbers.results import read_results
from ponderttt.reporting.numbers.rows import FrontierRow, SignalRow
from ponderttt.reporting.numbers.tables import Table, build_table, write_table
from ponderttt.settings.statistics import StatisticsConfig
from reporting_worlds import CODE, CORPUS, rules_grid, value, write_run

STATISTICS = StatisticsConfig(bootstrap_samples=400)
#: Two streams of 100 and 300 tokens.
TOKENS = [[60, 40], [300]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Table]:
    """A grid in which ``entropy`` knows best and the first feature is what a chunk has to teach."""
    root = tmp_path_factory.mktemp("frontier")
    folders = rules_grid(root, {"memory": 1.0, "lora": -0.1})
    write_table(folders, CODE, STATISTICS, root, "snakemake")
    return root, build_table(folders, CODE, STATISTICS)


def policy_world(root: Path) -> dict[tuple[str, str], FrontierRow]:
    """Losses of stream 1; stream 0 has 1 nat in every arm.  Costs are nominal: 1, 3 and 6, or 3 and 12."""
    folders = [write_run(root, "none", "plain", 0, lambda s, c, k: 3.5 if s else 1.0, tokens=TOKENS)]
    for method, loss, action in (
        ("skip", 3.0, Action.SKIP),
        ("update_1", 2.9, Action.UPDATE_1),
        ("update_2", 1.0, Action.UPDATE_2),
        ("random", 2.5, Action.SKIP),
        ("random@6", 2.0, Action.UPDATE_2),
        ("entropy", 2.0, Action.UPDATE_1),
        ("entropy@6", 1.5, Action.UPDATE_4),
        ("greedy_oracle", 0.1, Action.SKIP),
        ("sign_flipped", 0.2, Action.SKIP),
    ):
        folders.append(
            write_run(
                root,
                "ttt",
                method,
                0,
                lambda s, c, k, loss=loss: loss if s else 1.0,
                tokens=TOKENS,
                action=lambda s, c, action=action: action,
            )
        )
    rows = build_table(folders, CODE, STATISTICS).frontier
    assert {row.cost_measure for row in rows} == {"nominal", "flops", "seconds"}
    return {(row.fast_weights, row.method): row for row in rows if row.cost_measure == "nominal"}


def test_areas_worked_by_hand(tmp_path: Path) -> None:
    rows = policy_world(tmp_path)
    # Three quarters of the tokens are in stream 1, so a loss x there is 0.25 + 0.75 x.
    fixed, random, entropy = rows["ttt", "update_1"], rows["ttt", "random"], rows["ttt", "entropy@6"]
    assert {(row.range_low, row.range_high) for row in (fixed, random)} == {(1.0, 6.0)}
    assert (entropy.range_low, entropy.range_high) == (3.0, 6.0)
    # UPDATE_1 is above the line from SKIP (3 at cost 1) to UPDATE_2 (1 at cost 6), which is at 2.2 there.
    assert value(fixed.area) == pytest.approx(0.25 + 0.75 * (3.0 + 1.0) / 2)
    # Random decisions: 2.5 at cost 1, 2 at cost 6, hence 2.3 at cost 3.
    assert value(random.area) == pytest.approx(0.25 + 0.75 * (2.5 + 2.0) / 2)
    assert value(random.area_vs_fixed) == pytest.approx(value(random.area) - value(fixed.area))
    assert (random.area_vs_random, fixed.area_vs_fixed) == (None, None)
    # The rule: 2 at cost 3 and 1.5 at cost 12, hence 2 − 0.5 / 3 at cost 6.
    rule = (2.0 + 2.0 - 0.5 / 3) / 2
    assert value(entropy.area) == pytest.approx(0.25 + 0.75 * rule)
    assert value(entropy.area_vs_random) == pytest.approx(0.75 * (rule - (2.3 + 2.0) / 2))
    assert value(entropy.area_vs_fixed) == pytest.approx(0.75 * (rule - (2.2 + 1.0) / 2))
    # Stream 0 has 100 tokens and no difference, the other 300 and d: residuals ∓75 d, error √(4 · 75²) d / 400, and
    # t(0.975, 1) = 12.7062.
    assert entropy.area_vs_random is not None
    middle, half = 0.75 * (rule - 2.15), 12.7062 * 0.375 * abs(rule - 2.15)
    assert entropy.area_vs_random[1:] == pytest.approx((middle - half, middle + half, 1.0), abs=1e-5)


def test_a_policy_with_an_expensive_signal_is_compared_at_its_own_costs() -> None:
    others = [Span(1.0, 6.0, 3), Span(1.0, 12.0, 4)]
    assert common_range(Span(1.5, 8.0, 3), others) == (1.5, 6.0)
    assert common_range(Span(0.5, 8.0, 3), others) == (1.0, 6.0)
    assert common_range(Span(20.0, 30.0, 3), others) == (20.0, 30.0)
    assert common_range(Span(2.0, 3.0, 2), []) == (2.0, 3.0)


def test_a_policy_of_a_single_cost_has_no_area(tmp_path: Path) -> None:
    for row in (policy_world(tmp_path)[key] for key in (("ttt", "greedy_oracle"), ("none", "plain"))):
        assert (row.n_costs, row.area, row.range_low) == (1, None, None)


def test_the_front_has_only_arms_that_can_be_run(tmp_path: Path) -> None:
    on_front = {key for key, row in policy_world(tmp_path).items() if row.on_front}
    # The oracle and the flipped update are cheaper and better than all others, but cannot be run for real.
    assert on_front == {("ttt", "random"), ("ttt", "entropy"), ("ttt", "update_2")}


def test_the_frontier_reads_back_and_has_every_arm_at_every_cost(results: tuple[Path, Table]) -> None:
    root, table = results
    frontier = read_results(root / "paper_table.csv").frontier
    assert len(frontier) == 3 * len(table.rows)
    pd.testing.assert_frame_equal(frontier, frame_of(FrontierRow, table.frontier), rtol=1e-9, atol=1e-12)
    mine = frontier[
        (frontier.corpus == CORPUS) & (frontier.fast_weights == "memory") & (frontier.cost_measure == "flops")
    ]
    assert (mine[mine.policy == "entropy"].area_vs_random_ci_high < 0).all()
    assert set(mine[mine.policy.isin(["random", "loss"])].n_costs) == {3}


def test_the_signal_that_knows_the_lesson_is_found(results: tuple[Path, Table]) -> None:
    root, _ = results
    signals = read_results(root / "paper_table.csv").signals
    assert set(signals.action) == {"UPDATE_1", "UPDATE_2", "UPDATE_4"}
    of_one = signals[(signals.fast_weights == "memory") & (signals.action == "UPDATE_1")]
    assert of_one.feature.tolist() == [feature.name for feature in FEATURES]
    known, against = rows_of(SignalRow, of_one)[:2]
    assert value(known.rho) == of_one.rho.max()
    for estimate in (known.rho, known.rho_within):
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.low > 0
    assert value(against.rho) < 0
    # Eight streams of six chunks, whose last has no next chunk.
    assert (known.n_seeds, known.n_streams, known.n_chunks) == (2, 8, 40)
    # In this world, updates of LoRA hurt, and most where there is most to learn.
    assert signals[signals.fast_weights == "lora"].rho.iloc[0] < 0


def test_a_grid_without_an_oracle_has_a_file_without_signals(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "none", "plain", 0, lambda s, c, k: 3.0, tokens=TOKENS)
    write_table([folder], CODE, STATISTICS, tmp_path, "snakemake")
    results = read_results(tmp_path / "paper_table.csv")
    assert results.signals.empty
    assert results.frontier.area.isna().tolist() == [True] * 3
