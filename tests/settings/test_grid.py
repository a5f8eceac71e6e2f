"""A grid names what exists and what can be compared; anything else is refused by name."""

from __future__ import annotations

import dataclasses

import pytest

from ponderttt.contexts import ALONE, Context
from ponderttt.errors import ConfigError
from ponderttt.names import FastWeightsName
from ponderttt.settings.experiment import Experiment
from ponderttt.settings.mapping import from_mapping
from ponderttt.workflow.layout import policies_on
from small_experiment import changed, refusal


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("models.tiny.family", "lama", "models.tiny.family: unknown 'lama'; did you mean 'llama'?"),
        (
            "grid.fast_weights",
            ["lorra"],
            "grid.fast_weights: unknown 'lorra'; did you mean 'lora'?",
        ),
        ("grid.methods", ["update_3"], "grid.methods: unknown 'update_3'; did you mean 'update_"),
        ("grid.models", ["tinny"], "grid.models: unknown 'tinny'; did you mean 'tiny'?"),
        (
            "sequences.fast_weights",
            ["lorra"],
            "sequences.fast_weights: unknown 'lorra'; did you mean 'lora'?",
        ),
        ("grid.eval_corpora", ["there"], "grid.eval_corpora: unknown 'there'; did you mean 'theirs'?"),
        ("grid.train_corpus", "our", "grid.train_corpus: unknown 'our'; did you mean 'ours'?"),
    ],
)
def test_an_unknown_name_is_named_with_the_nearest_one(path, value, says):
    assert says in refusal(changed(path, value))


@pytest.mark.parametrize("key", ["models", "fast_weights", "methods", "seeds", "eval_corpora"])
def test_an_empty_list_of_the_grid_is_refused(key):
    assert f"grid.{key} is empty" in refusal(changed(f"grid.{key}", []))


def test_a_seed_named_twice_is_refused():
    """Two equal runs would count as two seeds."""
    assert "grid.seeds names one twice" in refusal(changed("grid.seeds", [1, 2, 1]))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_would_equal_another_is_refused(seed):
    """Random keys keep 32 bits: 2**32 would be seed 0 under another name."""
    message = refusal(changed("grid.seeds", [0, seed]))
    bound = "at least 0" if seed < 0 else "less than 4294967296"
    assert message == f"grid.seeds[1] must be {bound}, got {seed}"


def test_a_grid_without_its_control_is_refused():
    assert "grid.methods lacks 'skip'" in refusal(changed("grid.methods", ["update_1"]))


@pytest.mark.parametrize("budget", [0.5, 1.0, 12.0, 13.0, float("nan")])
def test_a_budget_that_no_mixture_of_actions_has_is_refused(budget):
    assert refusal(changed("grid.budget", budget)).startswith("grid.budget must be ")


def test_a_grid_may_do_without_context_arms():
    assert from_mapping(Experiment, changed("grid.contexts", [])).grid.all_contexts == (ALONE,)


@pytest.mark.parametrize("name", ["window_0", "context_0", "window", "full_1", "plain"])
def test_a_context_that_is_none_is_refused(name):
    assert (
        refusal(changed("grid.contexts", ["alone", name]))
        == f"grid.contexts has an unknown context '{name}'; use alone, full, window_n or context_n with n from 1 on"
    )


def test_a_name_of_fast_weights_says_its_kind_and_its_context():
    for text, name in {
        "ttt": FastWeightsName("ttt"),
        "memory+context_12": FastWeightsName("memory", context=Context("context", 12)),
        "lora-rank_64": FastWeightsName("lora", "rank_64"),
        "lora-wide+context_1": FastWeightsName("lora", "wide", Context("context", 1)),
    }.items():
        assert FastWeightsName.parse(text) == name
        assert str(name) == text
    for wrong in ("memory+context_0", "memory+1", "memory+context_1x", "+context_1", "lora-", "lora-a-b"):
        with pytest.raises(ConfigError, match=r"grid\.fast_weights"):
            FastWeightsName.parse(wrong)


def test_a_further_budget_is_a_further_arm_of_what_spends():
    grid = from_mapping(
        Experiment,
        changed("grid.methods", ["skip", "update_1", "random", "entropy", "schedule", "greedy_oracle"]),
    ).grid
    grid = dataclasses.replace(grid, more_budgets=(1.5, 6.0))
    assert tuple(map(str, grid.all_methods[6:])) == (
        *("random@1.5", "entropy@1.5", "greedy_oracle@1.5"),
        *("random@6", "entropy@6", "greedy_oracle@6"),
    )


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("grid.methods", ["skip", "schedule@2"], "schedule has no budget, so name it without one"),
        ("grid.methods", ["skip", "entropy@two"], "a budget is a number, as in entropy@2"),
        ("grid.methods", ["skip", "entropy@2.0"], "write its budget as @2"),
        ("grid.methods", ["skip", "entropy@12"], "a budget must be greater than 1 (SKIP) and less than 12"),
        ("grid.methods", ["skip", "entropy", "entropy@3"], "whose budget is one of the grid's"),
        ("grid.methods", ["skip", "context_1"], "grid.methods: unknown 'context_1'"),
        ("grid.methods", ["skip", "entropy-odd"], "entropy is not trained, so it has no variant"),
        ("grid.methods", ["skip", "ppo-odd"], "learned.variants: unknown 'odd'"),
        ("learned", {"leave_out": ["cod"]}, "learned.leave_out[0]: unknown 'cod'; did you mean 'code'?"),
        ("learned", {"variants": {"a b": {}}}, "is not usable as the name of a variant"),
        ("learned", {"ppo": {"warm_start": "ppo"}}, "learned.ppo.warm_start: unknown 'ppo'"),
        ("grid.more_budgets", [3.0], "which is grid.budget: name it once"),
        ("grid.more_budgets", [12.0], "grid.more_budgets[0] must be less than 12, got 12.0"),
        ("grid.fast_weights", ["suffix+context_1"], "cannot read chunks again; use suffix+window_1"),
        ("grid.fast_weights", ["lora-wide"], "fast_weights.variants: unknown 'wide'"),
        ("fast_weights", {"variants": {"a b": {}}}, "is not usable as the name of a variant"),
        ("grid.control_corpora", ["ours"], "a control is of kind random_tokens or repeated"),
        ("rules", {"schedule": ["UPDATE_3"]}, "rules.schedule[0]: unknown 'UPDATE_3'; did you mean 'UPDATE_"),
        ("rules", {"allocation": [0.5, 0.5]}, "must have one share for each of SKIP"),
        ("rules", {"ema_step": 0.0}, "rules.ema_step must be greater than 0, got 0.0"),
    ],
)
def test_a_rule_or_a_control_that_cannot_be_is_named(path, value, says):
    assert says in refusal(changed(path, value))


def test_a_learned_method_has_a_variant_and_a_budget_and_is_trained_under_a_name_of_its_own():
    experiment = changed("learned", {"variants": {"myopic": {"ppo": {"gamma": 0.0}}}})
    experiment["grid"]["methods"] = ["skip", "ppo", "ppo-myopic@2", "gumbel_hard@2", "random@2"]
    experiment = from_mapping(Experiment, experiment)
    assert experiment.learned.of("myopic").ppo.gamma == 0.0
    assert experiment.learned.of(None).ppo.gamma == 0.99
    methods = experiment.grid.all_methods
    assert [(m.base, m.variant, m.budget) for m in methods[1:3]] == [
        ("ppo", None, None),
        ("ppo", "myopic", 2.0),
    ]
    # PPO learns for a budget, a gate for any.
    trained = policies_on(experiment.grid, FastWeightsName("lora"), False)
    assert list(map(str, trained)) == ["ppo", "ppo-myopic@2", "gumbel_hard"]


def test_a_budget_over_the_corpus_has_no_oracle_that_spends_by_stream():
    mapping = changed("grid.methods", ["skip", "random", "greedy_oracle"])
    mapping["grid"]["budget_over"] = "corpus"
    assert (
        refusal(mapping)
        == "grid.budget_over is corpus, but greedy_oracle spends by stream: take it out of grid.methods"
    )
