"""Confirmatory comparisons are read exactly, and refused in one line if the table cannot make them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ponderttt.errors import ConfigError
from ponderttt.settings.confirmatory import ArmLabel, Comparison, unknown_arm
from ponderttt.settings.experiment import load
from ponderttt.settings.grid import GridConfig
from ponderttt.settings.statistics import StatisticsConfig

ROOT = Path(__file__).parents[2]
GRID = GridConfig(
    models=("tiny",),
    fast_weights=("lora", "memory", "memory+window_2"),
    methods=("skip", "update_1", "entropy", "transductive"),
    seeds=(0,),
    train_corpus="ours",
    eval_corpora=("theirs",),
    contexts=("alone", "full"),
    more_budgets=(1.5,),
)


@pytest.mark.parametrize(
    ("text", "arm", "reference", "shown"),
    [
        ("memory update_1 vs skip", ("memory", "update_1"), ("memory", "skip"), None),
        (
            "memory update_1 vs memory skip",
            ("memory", "update_1"),
            ("memory", "skip"),
            "memory update_1 vs skip",
        ),
        ("memory update_1 vs lora update_1", ("memory", "update_1"), ("lora", "update_1"), None),
        ("memory entropy@1.5 vs plain", ("memory", "entropy@1.5"), ("none", "plain"), None),
        ("memory+window_2 skip vs window_2", ("memory+window_2", "skip"), ("none", "window_2"), None),
        ("full vs plain", ("none", "full"), ("none", "plain"), None),
    ],
)
def test_a_reference_has_the_fast_weights_of_the_arm_or_is_a_backbone(
    text: str, arm: tuple[str, str], reference: tuple[str, str], shown: str | None
) -> None:
    comparison = Comparison.parse(text)
    assert comparison == (ArmLabel(*arm), ArmLabel(*reference))
    assert str(comparison) == (shown or text)
    assert unknown_arm([comparison], GRID) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("memory update_1", "must be an arm and its reference, as in 'memory update_1 vs skip', got 'memory"),
        ("memory update_1 vs skip vs plain", "must be an arm and its reference"),
        ("memory update_1 skip vs plain", "must be an arm and its reference"),
        ("update_1 vs skip", "must begin with the fast weights of the arm"),
        ("memory update_1 vs update_1", "compares an arm with itself"),
    ],
)
def test_another_form_is_refused_with_an_example(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"confirmatory\[0\] ") as caught:
        StatisticsConfig(confirmatory=(text,))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("memory update_2 vs skip", "unknown 'memory update_2'; did you mean 'memory update_1'?"),
        ("memory update_1 vs random", "unknown 'memory random'"),
        ("memory update_1 vs window_3", "unknown 'window_3'; did you mean 'window_2'?"),
        ("mamory update_1 vs skip", "unknown 'mamory update_1'; did you mean 'memory update_1'?"),
        ("memory entropy@2 vs skip", "unknown 'memory entropy@2'"),
        ("memory transductive vs skip", "transductive is a protocol without results"),
    ],
)
def test_an_arm_that_the_grid_lacks_is_one_line_with_the_nearest_one(text: str, says: str) -> None:
    problem = unknown_arm([Comparison.parse("memory update_1 vs skip"), Comparison.parse(text)], GRID)
    assert problem is not None
    assert problem.startswith("statistics.confirmatory[1]")
    assert says in problem


def test_a_study_refuses_a_comparison_without_its_arm() -> None:
    with pytest.raises(ConfigError, match=r"^statistics\.confirmatory\[0\]: unknown 'memory update_9'"):
        load(ROOT / "config.yaml", overrides={"statistics": {"confirmatory": ["memory update_9 vs skip"]}})


def test_a_comparison_named_twice_would_be_corrected_for_twice() -> None:
    with pytest.raises(ConfigError, match=r"confirmatory names a comparison twice"):
        StatisticsConfig(confirmatory=("memory update_1 vs skip", "memory update_1 vs memory skip"))


def test_too_few_samples_for_the_confidence_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"bootstrap_samples must be at least 199 for a confidence of 0.99"):
        StatisticsConfig(bootstrap_samples=198, confidence=0.99)
    assert StatisticsConfig(bootstrap_samples=199, confidence=0.99).bootstrap_samples == 199


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *sorted((ROOT / "config").rglob("*.yaml"))])
def test_every_study_here_has_the_arms_that_it_declares(path: Path) -> None:
    statistics = load(path).statistics
    assert len(statistics.comparisons) == len(dataclasses.asdict(statistics)["confirmatory"])
