"""The configuration is read exactly or refused: every bad key is named, with the nearest good one."""

from __future__ import annotations

import copy

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ponderttt.errors import ConfigError
from ponderttt.files.atomic import digest
from ponderttt.settings.experiment import Experiment, load
from ponderttt.settings.grid import GridConfig
from ponderttt.settings.mapping import as_mapping, from_mapping
from ponderttt.settings.training import TrainingConfig
from small_experiment import SMALL, changed, refusal


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


@pytest.mark.parametrize("size", [1, 0, -512])
def test_a_chunk_without_two_tokens_is_refused(size):
    assert refusal(changed("chunk_size", size)) == f"chunk_size must be at least 2, got {size}"


@pytest.mark.parametrize(("kind", "missing"), [("wheel", "package"), ("hub", "repository"), ("path", "path")])
def test_a_model_source_says_which_key_its_kind_needs(kind, missing):
    message = refusal(changed("models.tiny.source", {"kind": kind}))
    assert message == f"models.tiny.source.{missing} is missing: a model source of kind {kind} needs it"


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
