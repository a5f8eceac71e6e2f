"""The configuration is read exactly or refused: every bad key is named, with the nearest good one."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ponderttt.contexts import ALONE, Context
from ponderttt.errors import ConfigError
from ponderttt.files.atomic import digest
from ponderttt.names import FastWeightsName
from ponderttt.settings.experiment import Experiment, load
from ponderttt.settings.grid import GridConfig
from ponderttt.settings.mapping import as_mapping, from_mapping
from ponderttt.settings.training import TrainingConfig
from ponderttt.workflow.layout import policies_on

SMALL: dict[str, Any] = {
    "models": {
        "tiny": {
            "family": "llama",
            "source": {
                "kind": "wheel",
                "package": "a-package",
                "version": "1.0",
                "file": "a/b.gguf",
                "sha256": "0" * 64,
            },
        }
    },
    "corpora": {
        "ours": {
            "kind": "files",
            "language": "Python",
            "split": "train",
            "path": "src",
            "license": "MIT",
            "filters": {"min_bytes": 10},
        },
        "theirs": {"kind": "wheel", "language": "Python", "split": "heldout", "packages": "packages.csv"},
    },
    "grid": {
        "models": ["tiny"],
        "fast_weights": ["ttt", "lora"],
        "methods": ["skip", "update_1", "random"],
        "seeds": [0, 1, 2],
        "train_corpus": "ours",
        "eval_corpora": ["theirs"],
    },
    "fast_weights": {"ttt": {"heads": 2}, "lora": {"rank": 8}},
    "training": {"epochs": 1},
    "statistics": {"bootstrap_samples": 100},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """SMALL with the leaf at a dotted path set to ``value``."""
    mapping = copy.deepcopy(SMALL)
    *parents, leaf = path.split(".")
    place = mapping
    for key in parents:
        place = place.setdefault(key, {})
    place[leaf] = value
    return mapping


def refusal(mapping: Any) -> str:
    """The one line that refuses ``mapping``."""
    with pytest.raises(ConfigError) as caught:
        from_mapping(Experiment, mapping)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_not_written_has_its_default():
    experiment = from_mapping(Experiment, SMALL)
    assert (experiment.chunk_size, experiment.fast_weights.lora.rank) == (512, 8)
    assert experiment.corpora["ours"].filters.min_bytes == 10
    assert experiment.corpora["theirs"].filters.min_bytes == 64


@pytest.mark.parametrize(
    ("path", "where", "nearest"),
    [
        ("chunk_sise", "the configuration", "chunk_size"),
        ("grid.seed", "grid", "seeds"),
        ("training.learning_rat", "training", "learning_rate"),
        ("fast_weights.lara", "fast_weights", "lora"),
        ("fast_weights.lora.rnak", "fast_weights.lora", "rank"),
        ("models.tiny.famly", "models.tiny", "family"),
        ("models.tiny.source.sha265", "models.tiny.source", "sha256"),
        ("corpora.ours.filters.min_byte", "corpora.ours.filters", "min_bytes"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_one_at_every_depth(path, where, nearest):
    mapping = changed(path, 1)
    assert refusal(mapping) == f"{where}: unknown '{path.split('.')[-1]}'; did you mean '{nearest}'?"


def test_a_key_that_resembles_none_lists_those_that_exist():
    assert "known: bootstrap_samples, confidence, sign_flips, seed, confirmatory, allow_missing" in refusal(
        changed("statistics.zzz", 1)
    )


@pytest.mark.parametrize(
    ("path", "value", "where", "expected"),
    [
        ("chunk_size", "512", "chunk_size", "must be a whole number"),
        ("chunk_size", 512.0, "chunk_size", "must be a whole number"),
        ("chunk_size", True, "chunk_size", "must be a whole number"),
        ("data_dir", 3, "data_dir", "must be text"),
        ("training.epochs", None, "training.epochs", "must be a whole number"),
        ("training.learning_rate", True, "training.learning_rate", "must be a number"),
        ("corpora.ours.single_repository", 1, "corpora.ours.single_repository", "must be true or false"),
        ("grid.seeds", 3, "grid.seeds", "must be a list"),
        ("grid.seeds", [0, "one"], "grid.seeds[1]", "must be a whole number"),
        ("grid.models", "tiny", "grid.models", "must be a list"),
        ("models", ["tiny"], "models", "must be a mapping"),
        ("models.tiny", None, "models.tiny", "must be a mapping"),
        ("grid", [], "grid", "must be a mapping"),
    ],
)
def test_a_wrong_type_names_where_it_stands_and_what_was_found(path, value, where, expected):
    message = refusal(changed(path, value))
    assert message.startswith(f"{where} {expected}, got ")


def test_a_rate_written_without_a_dot_is_explained():
    """YAML reads 1e-3 as text."""
    mapping = changed("training.learning_rate", yaml.safe_load("1e-3"))
    assert "write 1.0e-3, with a dot" in refusal(mapping)


def test_a_word_that_yaml_does_not_read_as_text_is_explained():
    assert refusal(changed("cache", yaml.safe_load("on"))) == (
        "cache must be one of 'on', 'off' or 'auto', got True; put it in quotes"
    )
    version = refusal(changed("models.tiny.source.version", yaml.safe_load("1.0")))
    assert version == "models.tiny.source.version must be text, got 1.0; put it in quotes"
    date = refusal(changed("models.tiny.source.version", yaml.safe_load("2024-06-01")))
    assert date == "models.tiny.source.version must be text or a number, got '2024-06-01'; put it in quotes"


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


def test_a_training_corpus_is_never_evaluated():
    assert "nothing would be held out" in refusal(changed("grid.eval_corpora", ["theirs", "ours"]))


def of_datasets(train: dict[str, Any], held_out: dict[str, Any], **both: Any) -> dict[str, Any]:
    """SMALL with two corpora of datasets that have these settings in ``hub``."""
    mapping = copy.deepcopy(SMALL)
    shared = {"kind": "stack_v3", "language": "Python", **both}
    mapping["corpora"] = {
        "ours": {**shared, "split": "train", "hub": train},
        "theirs": {**shared, "split": "heldout", "hub": held_out},
    }
    return mapping


COMMIT = {"revision": "0" * 40}


def test_repositories_of_a_dataset_are_held_out_by_ranges_that_do_not_meet():
    low, high = {**COMMIT, "hash_to": 0.5}, {**COMMIT, "hash_from": 0.5}
    from_mapping(Experiment, of_datasets(low, high))
    message = refusal(of_datasets(low, {**high, "hash_from": 0.4}))
    assert message.startswith("corpora.theirs reads the same rows as the training corpus")
    assert "hashes from 0 to 0.5 and 0.4 to 1" in message and "ranges of hub.hash_from" in message
    # The dataset that a kind has by default is the same by its name, in any case.
    named = {**COMMIT, "repository": "huggingfacecode/stack-v3-train"}
    assert "reads the same rows" in refusal(of_datasets(COMMIT, named))
    for other in (
        {"dataset_split": "test"},
        {"config": "other"},
        {"revision": "1" * 40},
        {"repository": "a/b"},
    ):
        from_mapping(Experiment, of_datasets(COMMIT, {**COMMIT, **other}))


def test_a_running_text_is_held_out_by_its_split_and_by_no_hash(tmp_path):
    hub = {**COMMIT, "repository": "a/text", "hash_to": 0.5}
    rest = {**hub, "hash_from": 0.5, "hash_to": 1.0}
    message = refusal(of_datasets(hub, rest, kind="text"))
    assert "nothing would be held out: name another hub.dataset_split" in message
    from_mapping(Experiment, of_datasets(hub, {**rest, "dataset_split": "test"}, kind="text"))
    # A folder without a card of a dataset has no splits: all of its files are read.
    (tmp_path / "rows.txt").write_text("one line\n")
    folder = {"path": str(tmp_path)}
    assert "reads the same rows" in refusal(
        of_datasets(folder, {**folder, "dataset_split": "test"}, kind="text")
    )
    # So are those of a folder in which the other text lies, wherever a link to it is.
    (tmp_path.parent / "link").symlink_to(tmp_path / "rows.txt")
    for inside in (tmp_path / "rows.txt", tmp_path.parent / "link"):
        for pair in ((folder, {"path": str(inside)}), ({"path": str(inside)}, folder)):
            assert "reads the same rows" in refusal(of_datasets(*pair, kind="text"))
    (tmp_path / "README.md").write_text("---\n---\n")
    from_mapping(Experiment, of_datasets(folder, {**folder, "dataset_split": "test"}, kind="text"))


@pytest.mark.parametrize("size", [1, 0, -512])
def test_a_chunk_without_two_tokens_is_refused(size):
    assert refusal(changed("chunk_size", size)) == f"chunk_size must be at least 2, got {size}"


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


@pytest.mark.parametrize(("kind", "missing"), [("wheel", "package"), ("hub", "repository"), ("path", "path")])
def test_a_model_source_says_which_key_its_kind_needs(kind, missing):
    message = refusal(changed("models.tiny.source", {"kind": kind}))
    assert message == f"models.tiny.source.{missing} is missing: a model source of kind {kind} needs it"


def test_a_corpus_says_which_key_its_kind_needs():
    corpus = {"language": "Python", "split": "train"}
    for kind, key in (("files", "path"), ("npm", "packages"), ("repeated", "source"), ("stack_v3", "hub")):
        message = refusal(changed("corpora.ours", {**corpus, "kind": kind}))
        assert message.startswith(f"corpora.ours.{key} is missing: a corpus of kind {kind} needs it")


MIXED = {
    **{"kind": "mixed", "language": "Python", "split": "heldout", "segment_chunks": 2},
    **{"parts": {"code": ["theirs"]}, "max_streams": 3, "chunks_per_stream": 8},
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"parts": {}}, "corpora.mixed.parts is missing: a corpus of kind mixed needs it"),
        (
            {"segment_chunks": None},
            "corpora.mixed.segment_chunks is missing: a corpus of kind mixed needs it",
        ),
        ({"max_streams": None}, "corpora.mixed.max_streams is missing: a corpus of kind mixed needs it"),
        ({"parts": {"code": []}}, "corpora.mixed.parts.code names no corpus"),
        ({"parts": {"code": ["their"]}}, "corpora.mixed.parts.code: unknown 'their'; did you mean 'theirs'?"),
        ({"parts": {"code": ["mixed"]}}, "corpora.mixed.parts.code names mixed, of kind mixed; a part is a"),
        (
            {"parts": {"code": ["ours"]}},
            "corpora.mixed has ours, which is grid.train_corpus, as a part: nothing would be held out",
        ),
        (
            {"chunks_per_stream": 7},
            "corpora.mixed.chunks_per_stream must be a multiple of segment_chunks, 2, got 7",
        ),
        ({"content": "data"}, "corpora.mixed.content is only for packages and files"),
        ({"kind": "files", "path": "a", "license": "MIT"}, "corpora.mixed.parts is only for the kind mixed"),
    ],
)
def test_a_mixed_corpus_without_its_parts_or_with_training_streams_is_refused(changes, says):
    mapping = changed("corpora.mixed", MIXED)
    mapping["grid"]["eval_corpora"] = ["theirs", "mixed"]
    from_mapping(Experiment, mapping)
    mapping["corpora"]["mixed"] = {**MIXED, **changes}
    assert says in refusal(mapping)


def test_streams_shorter_than_a_segment_are_refused_as_a_part():
    mapping = changed("corpora.mixed", MIXED)
    mapping["corpora"]["theirs"]["chunks_per_stream"] = 1
    assert refusal(mapping) == (
        "corpora.mixed.parts.code names theirs, whose streams have at most 1 chunks; a segment has 2: raise "
        "corpora.theirs.chunks_per_stream or lower corpora.mixed.segment_chunks"
    )


def test_a_corpus_of_policies_is_another_than_those_of_adapters_and_of_evaluation():
    mapping = changed("grid.policy_corpus", "ours")
    assert refusal(mapping).startswith(
        "grid.policy_corpus ours is also grid.train_corpus: name another corpus"
    )
    assert "grid.policy_corpus theirs is also in grid.eval_corpora" in refusal(
        changed("grid.policy_corpus", "theirs")
    )
    assert "grid.policy_corpus: unknown 'our'" in refusal(changed("grid.policy_corpus", "our"))
    mapping = of_datasets({**COMMIT, "hash_to": 0.5}, {**COMMIT, "hash_from": 0.5})
    mapping["corpora"]["more"] = SMALL["corpora"]["theirs"]
    mapping["grid"] = {**mapping["grid"], "policy_corpus": "more"}
    assert "is for corpora of packages and files, but ours is of kind stack_v3" in refusal(mapping)
    from_mapping(Experiment, changed("grid.policy_corpus", None))


@pytest.mark.parametrize("path", ["grid", "models", "grid.seeds", "models.tiny.family"])
def test_a_missing_key_is_named(path):
    mapping = copy.deepcopy(SMALL)
    *parents, leaf = path.split(".")
    place = mapping
    for key in parents:
        place = place.setdefault(key, {})
    del place[leaf]
    assert refusal(mapping) == f"{path} is missing"


@pytest.mark.parametrize("name", [2024, True, None])
def test_a_name_that_yaml_does_not_read_as_text_is_refused(name):
    mapping = copy.deepcopy(SMALL)
    mapping["corpora"][name] = mapping["corpora"]["ours"]
    assert "is not text; put it in quotes" in refusal(mapping)


def test_a_whole_number_is_accepted_where_a_fraction_is_meant():
    budget = from_mapping(Experiment, changed("grid.budget", 4)).grid.budget
    assert budget == 4.0
    assert isinstance(budget, float)


def test_the_effective_configuration_reads_back_as_itself():
    experiment = from_mapping(Experiment, SMALL)
    written = as_mapping(experiment)
    assert from_mapping(Experiment, written) == experiment
    assert from_mapping(Experiment, yaml.safe_load(yaml.safe_dump(written))) == experiment
    assert digest(written) == digest(as_mapping(from_mapping(Experiment, written)))


@given(
    rate=st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False),
    tokens=st.none() | st.integers(1),
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, unique=True),
)
def test_any_setting_survives_a_round_trip_through_yaml(rate, tokens, seeds):
    training = TrainingConfig(learning_rate=rate, outer_tokens=tokens)
    grid = from_mapping(GridConfig, {**SMALL["grid"], "seeds": seeds})
    for config in (training, grid):
        text = yaml.safe_dump(as_mapping(config))
        assert from_mapping(type(config), yaml.safe_load(text)) == config


def test_a_file_reads_as_its_mapping_does(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    assert load(path) == from_mapping(Experiment, SMALL)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"grid: [1, 2", "not readable as YAML"),
        (b"\xff\xfe\x00grid", "not readable as YAML"),
        (b"", "must be a mapping"),
        (b"- 1\n- 2\n", "must be a mapping"),
        (b"grid:\n  seeds: [0]\n  budget: 3.0\n  seeds: [1]\n", "the key 'seeds' is named twice .* line 2"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(tmp_path, content, says):
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="not a readable configuration file: Is a directory"):
        load(tmp_path)


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
