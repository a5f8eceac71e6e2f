"""Every family is read from its published kinds of files, and converted to a folder that opens without a copy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from gguf import GGUFWriter
from safetensors.numpy import save_file

import model_files as files
from ponderttt.errors import PonderTTTError
from ponderttt.models import suffix, tensors, weights
from ponderttt.models.config_json import shape_json
from ponderttt.models.families.family import Shape
from ponderttt.models.families.gemma3 import Gemma3Config
from ponderttt.models.gguf_names import GGUF_FAMILIES, gguf_name
from ponderttt.models.tokenizer_tables import from_vocabulary
from ponderttt.settings.mapping import from_mapping
from ponderttt.settings.model import ModelConfig, ModelSource
from tiny_families import TINY

Arrays = dict[str, np.ndarray]
VOCABULARY = len(files.TOKENS)
SHAPES: dict[str, Shape] = {
    "gpt2": dataclasses.replace(TINY["gpt2"], vocab_size=VOCABULARY),
    # A GGUF file does not say how many blocks there are to a global one.
    "gemma3": dataclasses.replace(TINY["gemma3"], vocab_size=VOCABULARY, global_every=6),
}
TOKENIZER_JSON = from_vocabulary(files.TOKENS, files.KINDS, files.MERGES, "gpt-2").json


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def arrays(shape: Shape) -> Arrays:
    return tensors.random_tensors(shape, jax.random.key(0))


def config_for(shape: Shape, path: Path) -> ModelConfig:
    source = {"kind": "path", "path": str(path), "accept_terms": True}
    return from_mapping(ModelConfig, {"family": shape.family, "source": source})


def loaded(shape: Shape, path: Path) -> tuple[Shape, Arrays]:
    backbone = files.load_backbone(config_for(shape, path))
    return backbone.config, tensors.disassemble(nnx.merge(backbone.graph, backbone.params))


def write_folder(folder: Path, shape: Shape, arrays: Arrays) -> Path:
    folder.mkdir()
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(shape_json(shape)))
    (folder / "tokenizer.json").write_text(TOKENIZER_JSON)
    return folder


def write_gguf(
    path: Path, shape: Shape, arrays: Arrays, change: Callable[[GGUFWriter], None] = lambda writer: None
) -> Path:
    """Write a file as llama.cpp's converter does: GPT-2's matrices transposed, Gemma's norms with one added."""
    writer = files.begin_gguf(path, shape.family, shape, "gpt-2")
    if isinstance(shape, Gemma3Config):
        writer.add_head_count_kv(shape.kv_heads)
        writer.add_key_length(shape.head_dim)
        writer.add_sliding_window(shape.window)
        writer.add_rope_freq_base(shape.global_rope_base)
        writer.add_string("gemma3.rope.scaling.type", "linear")
        writer.add_float32("gemma3.rope.scaling.factor", shape.global_rope_factor)
        writer.add_layer_norm_rms_eps(shape.norm_eps)
    else:
        writer.add_layer_norm_eps(shape.norm_eps)
    block = {"gpt2": "transformer.h.{}.", "gemma3": "model.layers.{}."}[shape.family]
    for name, array in arrays.items():
        stored = array
        if shape.family == "gpt2" and ".h." in name and array.ndim == 2:
            stored = array.T
        if shape.family == "gemma3" and name.endswith("norm.weight"):
            stored = array + 1
        writer.add_tensor(gguf_name(GGUF_FAMILIES[shape.family], block, name), np.ascontiguousarray(stored))
    change(writer)
    files.finish_gguf(writer)
    return path


def test_a_folder_and_a_gguf_file_give_back_every_tensor(
    shape: Shape, arrays: Arrays, tmp_path: Path
) -> None:
    for path in (
        write_folder(tmp_path / "folder", shape, arrays),
        write_gguf(tmp_path / "tiny.gguf", shape, arrays),
    ):
        config, found = loaded(shape, path)
        assert config == shape
        assert list(found) == list(tensors.tensor_shapes(shape))
        for name, array in arrays.items():
            # Adding 1 to a norm and subtracting it rounds.
            np.testing.assert_allclose(found[name], array, rtol=0, atol=2e-7, err_msg=name)


def test_a_converted_model_is_the_same_whole_and_in_parts(
    shape: Shape, arrays: Arrays, tmp_path: Path
) -> None:
    source = config_for(shape, write_folder(tmp_path / "folder", shape, arrays))
    facts = weights.convert(source, tmp_path / "unused", tmp_path / "converted")
    whole = weights.open_backbone(tmp_path / "converted")
    assert whole.config == shape and facts["family"] == shape.family
    assert whole.digest == files.load_backbone(source).digest == facts["digest"]
    alone = weights.open_unembedding(tmp_path / "converted")
    np.testing.assert_array_equal(alone.matrix, whole.unembedding)
    config, after = suffix.open_suffix(tmp_path / "converted", 1)
    assert config == shape
    expected = suffix.suffix_weights(weights.open_backbone(tmp_path / "converted", split_layer=1))
    jax.tree.map(np.testing.assert_array_equal, after, expected)


def test_gpt2_is_read_with_and_without_the_name_of_its_body_and_its_masks(tmp_path: Path) -> None:
    shape = SHAPES["gpt2"]
    arrays = tensors.random_tensors(shape, jax.random.key(1))
    bare = {name.removeprefix("transformer."): array for name, array in arrays.items()}
    masks = {f"h.{layer}.attn.bias": np.ones((1, 1, 4, 4), np.float32) for layer in range(shape.layers)}
    _, found = loaded(shape, write_folder(tmp_path / "bare", shape, bare | masks))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_gemma_3_is_read_out_of_a_checkpoint_that_holds_images_too(tmp_path: Path) -> None:
    shape = SHAPES["gemma3"]
    arrays = tensors.random_tensors(shape, jax.random.key(1))
    both = {f"language_model.{name}": array for name, array in arrays.items()}
    both["vision_tower.vision_model.post_layernorm.weight"] = np.ones(4, np.float32)
    both["multi_modal_projector.mm_soft_emb_norm.weight"] = np.ones(4, np.float32)
    folder = write_folder(tmp_path / "both", shape, both)
    text = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    config, found = loaded(shape, folder)
    assert config == shape
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("gpt2", {"activation_function": "relu"}, "activation_function relu is not supported, only gelu_new"),
        ("gpt2", {"n_head": 5}, "n_embd must be a multiple of n_head 5, got 32"),
        ("gpt2", {"model_type": "bloom"}, "holds a bloom model; known: llama, gpt2"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0 is not supported"),
        (
            "gemma3",
            {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
            "layer_types is not a regular pattern",
        ),
    ],
)
def test_what_a_family_does_not_have_is_one_line(
    family: str, change: dict[str, object], message: str, tmp_path: Path
) -> None:
    shape = SHAPES[family]
    folder = write_folder(tmp_path / "folder", shape, tensors.random_tensors(shape, jax.random.key(0)))
    (folder / "config.json").write_text(json.dumps(shape_json(shape) | change))
    with pytest.raises(PonderTTTError, match=message) as caught:
        files.load_backbone(config_for(shape, folder))
    assert "\n" not in str(caught.value)


def test_another_family_than_the_configuration_says_is_one_line(tmp_path: Path) -> None:
    shape = SHAPES["gpt2"]
    folder = write_folder(tmp_path / "folder", shape, tensors.random_tensors(shape, jax.random.key(0)))
    write_gguf(tmp_path / "tiny.gguf", shape, tensors.random_tensors(shape, jax.random.key(0)))
    for path in (folder, tmp_path / "tiny.gguf"):
        with pytest.raises(PonderTTTError, match="holds a gpt2 model; family llama expects llama"):
            files.load_backbone(ModelConfig("llama", ModelSource("path", path=str(path))))
