"""Presets are the published models: their numbers, and the parameters that these add up to."""

from __future__ import annotations

import math

import pytest

from ponderttt.errors import ConfigError
from ponderttt.models.config_json import read_shape, shape_json
from ponderttt.models.families.gemma3 import GLOBAL, Gemma3Config, kinds
from ponderttt.models.presets import PRESETS, preset
from ponderttt.models.tensors import tensor_shapes
from ponderttt.provenance import write_json

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


def test_an_unknown_preset_names_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown 'gemma3-2b'.*gemma3-27b"):
        preset("gemma3-2b")
