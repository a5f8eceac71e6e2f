"""Rows of rules, budgets and controls: their references and recoveries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ponderttt.actions import Action
from ponderttt.names import MethodName
from ponderttt.reporting.numbers.methods import rank_of_method
from ponderttt.reporting.numbers.rows import TableRow
from ponderttt.reporting.numbers.tables import build_table
from reporting_worlds import (
    CODE,
    CORPUS,
    STATISTICS,
    TOKENS,
    rules_grid,
    table_of,
    update,
    value,
    verdict,
    write_run,
)


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], TableRow]:
    """The rows of a grid with rules, oracles and controls at three budgets."""
    root = tmp_path_factory.mktemp("rules")
    folders = rules_grid(root, {"memory": 1.0, "memory+full": 0.5})
    rows = build_table(folders, CODE, STATISTICS).rows
    return {(row.corpus, row.fast_weights, row.method): row for row in rows}


def oracle_world(
    root: Path, ours: float, *, oracle: str = "exhaustive_oracle", costly: bool = False
) -> TableRow:
    """skip at 2, random at 1.9, the oracle at 1.5; the arm ``entropy`` at ``ours``."""
    costly_action = lambda s, c: Action.UPDATE_4  # noqa: E731
    folders = [write_run(root, "none", "plain", 0, lambda s, c, k: 3.0, tokens=TOKENS)]
    for method, loss, action in (
        ("skip", 2.0, lambda s, c: Action.SKIP),
        ("random", 1.9, update),
        (oracle, 1.5, update),
        ("entropy", ours, costly_action if costly else update),
    ):
        folders.append(
            write_run(root, "ttt", method, 0, lambda s, c, k, loss=loss: loss, tokens=TOKENS, action=action)
        )
    return table_of(folders)["ttt", "entropy"]


def test_recovery_is_the_share_of_the_oracles_gain(tmp_path: Path) -> None:
    row = oracle_world(tmp_path, 1.7)
    assert value(row.recovery_vs_skip) == pytest.approx(0.3 / 0.5)
    assert value(row.recovery_vs_random) == pytest.approx(0.2 / 0.4)
    assert "recovery" not in row.note


def test_an_arm_that_costs_more_than_the_oracle_has_no_recovery(tmp_path: Path) -> None:
    row = oracle_world(tmp_path, 1.2, costly=True)
    assert (row.recovery_vs_skip, row.recovery_vs_random) == (None, None)
    assert "no recovery: costs 12.00 per chunk, exhaustive_oracle only 3.00" in row.note


def test_the_greedy_oracle_gives_no_recovery_since_it_is_no_bound(tmp_path: Path) -> None:
    row = oracle_world(tmp_path, 1.4, oracle="greedy_oracle")
    assert (row.recovery_vs_skip, row.recovery_vs_random) == (None, None)
    assert "no recovery: no best sequences are known" in row.note


def test_recovery_above_one_is_told(tmp_path: Path) -> None:
    row = oracle_world(tmp_path, 1.4)
    assert value(row.recovery_vs_skip) == pytest.approx(1.2)
    assert "above 100 %: exhaustive_oracle is no upper bound" in row.note


def test_an_oracle_without_gain_gives_no_recovery(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path, "ttt", method, 0, lambda s, c, k: 2.0, tokens=TOKENS, action=update)
        for method in ("skip", "entropy", "exhaustive_oracle")
    ]
    row = table_of(folders)["ttt", "entropy"]
    assert row.recovery_vs_skip is None
    assert "gains nothing over skip" in row.note


def test_rules_are_compared_within_their_budget_and_label(
    rules: dict[tuple[str, str, str], TableRow],
) -> None:
    for label in ("memory", "memory+full"):
        skip = rules[CORPUS, label, "skip"]
        for suffix, budget in (("", 3.0), ("@1.5", 1.5), ("@5", 5.0)):
            row, random, oracle = (
                rules[CORPUS, label, base + suffix] for base in ("entropy", "random", "greedy_oracle")
            )
            assert row.budget == budget
            assert row.budget_error == pytest.approx(0, abs=1e-12)
            assert row.cost_nominal == pytest.approx(budget)
            assert value(row.delta_vs_skip) == pytest.approx(row.loss - skip.loss)
            assert value(row.delta_vs_random) == pytest.approx(row.loss - random.loss)
            assert (row.recovery_vs_skip, row.recovery_vs_random) == (None, None)
            assert (random.delta_vs_random, random.recovery_vs_random) == (None, None)
            assert (oracle.recovery_vs_skip, oracle.recovery_vs_random) == (None, None)
            assert oracle.delta_vs_random is not None


def test_fixed_schedules_have_no_budget_and_meet_random_decisions_of_their_cost(
    rules: dict[tuple[str, str, str], TableRow],
) -> None:
    random = rules[CORPUS, "memory", "random"]
    for method in ("update_1", "schedule"):
        row = rules[CORPUS, "memory", method]
        assert (row.budget, row.budget_error) == (None, None)
        assert value(row.delta_vs_random) == pytest.approx(row.loss - random.loss)
    for method in ("skip", "update_2", "update_4", "shuffled"):
        row = rules[CORPUS, "memory", method]
        assert (row.delta_vs_random, row.recovery_vs_random) == (None, None)


def test_rows_have_the_shares_of_actions_and_the_gap_of_ranks_to_training(
    rules: dict[tuple[str, str, str], TableRow],
) -> None:
    row = rules[CORPUS, "memory", "entropy"]
    shares = (row.share_skip, row.share_update_1, row.share_update_2, row.share_update_4)
    assert shares == pytest.approx((15 / 48, 27 / 48, 4 / 48, 2 / 48))
    # The ranks are those of 48 chunks, k / 48 to the power of 1.3.
    x = (np.arange(48) / 48) ** 1.3
    assert row.rank_gap == pytest.approx(np.max(np.arange(1, 49) / 48 - x))
    assert rules[CORPUS, "memory", "update_1"].rank_gap is None


def test_rows_are_listed_beside_their_references(rules: dict[tuple[str, str, str], TableRow]) -> None:
    of_memory = [method for corpus, label, method in rules if (corpus, label) == (CORPUS, "memory")]
    budgeted = ["random", "entropy", "loss", "reconstruction", "greedy_oracle"]
    assert of_memory == [
        *("skip", "update_1", "update_2", "update_4", "schedule"),
        *(method + suffix for suffix in ("", "@1.5", "@5") for method in budgeted),
        *("shuffled", "sign_flipped", "other_stream"),
    ]
    labels = list(dict.fromkeys(label for corpus, label, _ in rules if corpus == CORPUS))
    assert labels == ["none", "memory", "memory+full"]


def test_control_corpora_may_have_fewer_methods_and_seeds(
    rules: dict[tuple[str, str, str], TableRow],
) -> None:
    nothing = rules["random-tokens", "memory", "update_1"]
    assert nothing.n_seeds == 1
    assert value(nothing.delta_vs_skip) == 0.0
    repeated = rules["repeated", "memory", "update_1"]
    assert verdict(repeated, repeated.delta_vs_skip) == "too few streams for a claim"
    flipped = rules[CORPUS, "memory", "sign_flipped"]
    assert verdict(flipped, flipped.delta_vs_skip) == "hurt"


def fixed_world(root: Path, steps: float, seconds: float = 1.0) -> dict[tuple[str, str], TableRow]:
    """skip at 2, UPDATE_1 at 1.8, UPDATE_2 at 1.9; a rule at 1.7 whose FLOPs are those of ``steps`` updates."""
    folders = [write_run(root, "none", "plain", 0, lambda s, c, k: 3.0, tokens=TOKENS)]
    for method, loss, action in (
        ("skip", 2.0, Action.SKIP),
        ("update_1", 1.8, Action.UPDATE_1),
        ("update_2", 1.9, Action.UPDATE_2),
    ):
        folders += [
            write_run(
                root,
                "ttt",
                method,
                k,
                lambda s, c, k, loss=loss: loss + k,
                tokens=TOKENS,
                action=lambda s, c, action=action: action,
            )
            for k in (0, 1)
        ]
    folders += [
        write_run(
            root,
            "ttt",
            "entropy",
            k,
            lambda s, c, k: 1.7 + k,
            tokens=TOKENS,
            flops=1e9 * (1 + steps / 10),
            seconds=seconds,
        )
        for k in (0, 1)
    ]
    return table_of(folders)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # Halfway between SKIP and UPDATE_1: half of the streams get one, half the other.
        (0.5, 1.7 - 1.9),
        (1.0, 1.7 - 1.8),
        # UPDATE_2 costs more than UPDATE_1 and is worse, so nothing that costs more is better than UPDATE_1.
        (1.5, 1.7 - 1.8),
        (9.0, 1.7 - 1.8),
        # Cheaper than SKIP by less than the tolerance, and by more.
        (-0.2, 1.7 - 2.0),
        (-2.0, None),
    ],
)
def test_a_rule_meets_the_best_fixed_schedules_of_its_cost(
    tmp_path: Path, steps: float, expected: float | None
) -> None:
    row = fixed_world(tmp_path, steps)["ttt", "entropy"]
    found = row.delta_vs_fixed_flops
    assert (found and found.value) == (None if expected is None else pytest.approx(expected))
    # Its seconds are those of SKIP.
    assert value(row.delta_vs_fixed_seconds) == pytest.approx(1.7 - 2.0)
    assert row.delta_vs_fixed_seconds.low == pytest.approx(-0.3)


def test_seconds_within_the_resolution_of_the_clock_are_equal(tmp_path: Path) -> None:
    for seconds, expected in ((1.095, 1.7 - 1.8), (1.05, 1.7 - 1.9)):
        # UPDATE_1 takes 1.1 seconds: half a hundredth more is its cost, 5 % is not, and takes half of SKIP.
        row = fixed_world(tmp_path / str(seconds), 0.0, seconds)["ttt", "entropy"]
        assert value(row.delta_vs_fixed_seconds) == pytest.approx(expected)


def test_a_rule_that_misses_its_budget_is_not_compared_with_random(tmp_path: Path) -> None:
    row = oracle_world(tmp_path, 1.2, costly=True)
    assert row.budget_error == pytest.approx(12 / 3 - 1)
    assert row.delta_vs_random is None
    assert "no delta_vs_random: costs 12.00 per chunk, random 3.00" in row.note


def test_a_budget_in_flops_is_checked_in_flops(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path, "ttt", "skip", 0, lambda s, c, k: 2.0, tokens=TOKENS),
        write_run(
            tmp_path,
            "ttt",
            "entropy@1.2",
            0,
            lambda s, c, k: 1.9,
            tokens=TOKENS,
            action=update,
            facts={"budget": {"mean": 3.0, "unit": "flops"}},
        ),
    ]
    row = table_of(folders)["ttt", "entropy@1.2"]
    assert row.budget == 1.2
    assert row.budget_error == pytest.approx(1.1 / 1.2 - 1)


def test_a_learned_policy_is_compared_with_the_best_rule_of_its_budget(tmp_path: Path) -> None:
    losses = {
        "skip": 2.0,
        "entropy": 1.8,
        "loss": 1.7,
        "entropy@2": 1.9,
        "schedule": 1.2,
        "ppo": 1.65,
        "gumbel_hard@2": 1.95,
        "gumbel_soft": 1.6,
    }
    folders = [write_run(tmp_path, "none", "plain", 0, lambda s, c, k: 3.0, tokens=TOKENS)]
    for method, loss in losses.items():
        act = (lambda s, c: Action.SKIP) if method == "skip" else update
        folders.append(
            write_run(tmp_path, "ttt", method, 0, lambda s, c, k, loss=loss: loss, tokens=TOKENS, action=act)
        )
    rows = table_of(folders)
    ppo, gate, soft = (rows["ttt", method] for method in ("ppo", "gumbel_hard@2", "gumbel_soft"))
    assert (ppo.best_rule, gate.best_rule, soft.best_rule) == ("loss", "entropy@2", None)
    assert value(ppo.delta_vs_rule) == pytest.approx(-0.05)
    assert value(gate.delta_vs_rule) == pytest.approx(0.05)
    assert soft.delta_vs_rule is None
    assert rows["ttt", "entropy"].delta_vs_rule is None


def test_backbones_are_listed_by_what_they_see() -> None:
    methods = ["update_1", "full", "window_10", "context_1", "window_2", "plain", "skip"]
    ordered = sorted(map(MethodName.parse, methods), key=rank_of_method)
    assert list(map(str, ordered)) == [
        *("plain", "context_1", "window_2", "window_10", "full"),
        *("skip", "update_1"),
    ]
