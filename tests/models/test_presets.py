"""Presets are the published models: their numbers, and the parameters that these add up to."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from ponderttt.errors import ConfigError, PonderTTTError
from ponderttt.files.atomic import write_json
from ponderttt.models.config_json import read_shape, shape_json
from ponderttt.models.families import flops_per_token, reading_flops
from ponderttt.models.families.family import Shape
from ponderttt.models.families.gemma3 import GLOBAL, Gemma3Config, kinds
from ponderttt.models.presets import PRESETS, preset
from ponderttt.models.tensors import tensor_shapes

#: The shape in the published config.json of each model; the large Gemma 3 models leave out most of it.
PUBLISHED = {
    path.stem: json.loads(path.read_text())
    for path in (Path(__file__).parent / "published_configs").iterdir()
}
#: As published, or counted from the published checkpoints.
PARAMETERS = {
    "gpt2-125m": 124_439_808,
    "gpt2-350m": 354_823_168,
    "gpt2-1b": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gemma3-270m": 268_098_176,
    "gemma3-1b": 999_885_952,
    "gemma3-4b": 3_880_263_168,
    "gemma3-12b": 11_766_034_176,
    "gemma3-27b": 27_009_346_304,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_as_many_parameters_as_the_model(name: str) -> None:
    assert sum(math.prod(shape) for shape in tensor_shapes(preset(name)).values()) == PARAMETERS[name]


def shape_of(settings: dict[str, Any], folder: Path) -> Shape:
    """Return the shape that a config.json with these settings declares."""
    write_json(folder / "config.json", settings)
    return read_shape(folder)


def test_every_preset_has_its_published_configuration() -> None:
    assert PUBLISHED.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_what_the_published_configuration_declares(name: str, tmp_path: Path) -> None:
    assert shape_of(PUBLISHED[name], tmp_path) == preset(name)


@pytest.mark.parametrize("name", ["gemma3-4b", "gemma3-12b", "gemma3-27b"])
def test_a_sparse_text_config_is_read_by_itself_and_in_the_newer_form_too(name: str, tmp_path: Path) -> None:
    text = dict(PUBLISHED[name]["text_config"])
    assert shape_of(text, tmp_path) == preset(name)
    newer = {"full_attention": text.pop("rope_scaling"), "sliding_attention": {"rope_type": "default"}}
    assert shape_of({**text, "rope_parameters": newer}, tmp_path) == preset(name)
    bases = {"rope_theta": 5e5, "rope_local_base_freq": 2e4}
    moved = shape_of({**text, "rope_parameters": newer, **bases}, tmp_path)
    assert isinstance(moved, Gemma3Config)
    assert (moved.global_rope_base, moved.local_rope_base, moved.global_rope_factor) == (5e5, 2e4, 8.0)


@pytest.mark.parametrize("name", [*PRESETS, "gpt2", "llama", "gemma3_text"])
def test_what_a_configuration_leaves_out_is_what_transformers_takes(name: str, tmp_path: Path) -> None:
    """transformers writes out every key; three of the files hold only the type."""
    settings = PUBLISHED.get(name, {"model_type": name})
    shape = shape_of(settings, tmp_path)
    complete = AutoConfig.from_pretrained(tmp_path, local_files_only=True).to_dict()
    assert len(complete) > len(settings)
    assert shape_of(complete, tmp_path) == shape


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("gpt2-125m", {"n_head": 0}, "n_head must be a whole number of at least 1, got 0"),
        ("gpt2-125m", {"n_embd": "768"}, "n_embd must be a whole number of at least 1, got '768'"),
        (
            "smollm2-135m",
            {"num_attention_heads": None},
            "num_attention_heads must be a whole number of at least 1, got None",
        ),
        ("smollm2-135m", {"rms_norm_eps": -1e-6}, "rms_norm_eps must be a number greater than 0, got -1e-06"),
        (
            "smollm2-135m",
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "positions of type linear are not",
        ),
        ("smollm2-135m", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
        (
            "smollm2-135m",
            {"rope_parameters": {"partial_rotary_factor": 0.25}},
            "partial_rotary_factor 0.25 is not supported",
        ),
        (
            "gemma3-1b",
            {"rope_scaling": {"rope_type": "yarn"}},
            "positions of type yarn are not supported, only default or",
        ),
        (
            "gemma3-1b",
            {"rope_scaling": {"rope_type": "linear"}},
            "factor of rope_scaling must be a number greater than 0, got None",
        ),
        (
            "gemma3-1b",
            {"sliding_window": None},
            "sliding_window must be a whole number of at least 1, got None",
        ),
        (
            "gemma3-1b",
            {"sliding_window_pattern": -6},
            "sliding_window_pattern must be a whole number of at least 1, got -6",
        ),
        ("gemma3-1b", {"use_bidirectional_attention": True}, "use_bidirectional_attention is not supported"),
        ("gemma3-4b", {"text_config": [1]}, "text_config is not a JSON object"),
    ],
)
def test_a_value_that_no_such_model_has_is_named(
    name: str, change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(PonderTTTError) as caught:
        shape_of(PUBLISHED[name] | change, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize("name", PRESETS)
def test_a_shape_survives_its_config_json(name: str, tmp_path) -> None:
    write_json(tmp_path / "config.json", shape_json(preset(name)))
    assert read_shape(tmp_path) == preset(name)


def test_gemma_3_has_the_numbers_of_its_reference() -> None:
    small, large = preset("gemma3-270m"), preset("gemma3-27b")
    assert isinstance(small, Gemma3Config) and isinstance(large, Gemma3Config)
    assert (small.window, small.max_context, small.global_rope_factor) == (512, 32_768, 1.0)
    assert (large.window, large.max_context, large.global_rope_factor) == (1_024, 131_072, 8.0)
    assert (small.query_scale, large.query_scale) == (256**-0.5, 168**-0.5)
    assert [layer for layer, kind in enumerate(kinds(small)) if kind == GLOBAL] == [5, 11, 17]
    assert {(c.local_rope_base, c.global_rope_base, c.bos_id) for c in (small, large)} == {(1e4, 1e6, 2)}


def test_the_flops_of_reading_count_the_keys_that_each_block_sees() -> None:
    """Within the window every block sees all keys before a token; beyond it only the global ones do."""
    llama, gemma = preset("smollm2-135m"), preset("gemma3-270m")
    for shape in (llama, gemma):
        assert reading_flops(shape, 511) == 511 * flops_per_token(shape, 256, unembed=False)
    assert reading_flops(llama, 1023) == 1023 * flops_per_token(llama, 512, unembed=False)
    everything = 1023 * flops_per_token(gemma, 512, unembed=False)
    # 15 of the 18 blocks do not see 1 to 511 keys of the 511 tokens after the window.
    unseen = 15 * 4 * gemma.heads * gemma.head_dim * sum(range(512))
    assert reading_flops(gemma, 1023) == everything - unseen
    assert unseen / everything > 0.02


def test_an_unknown_preset_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown 'gemma3-2b'.*gemma3-27b"):
        preset("gemma3-2b")
