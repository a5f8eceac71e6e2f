"""A folder of safetensors is read as by transformers: tensors outside of the model are left out, the rest is checked."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import model_files as files
from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import write_json
from ponderttt.models import safetensors_file, tensors
from ponderttt.models.config_json import shape_json
from ponderttt.models.families.family import Shape
from tiny_families import TINY

Arrays = dict[str, np.ndarray]
ARRAYS = tensors.random_tensors(files.SHAPE, jax.random.key(0))
EMBEDDING = "model.embed_tokens.weight"


def write_folder(folder: Path, shape: Shape, arrays: Arrays) -> Path:
    """Write a model in one file."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", shape_json(shape))
    save_file(arrays, folder / "model.safetensors")
    return folder


def refusal(folder: Path) -> str:
    """Return the line of the error for a folder."""
    with pytest.raises(PonderTTTError) as caught:
        tensors.check_tensors(safetensors_file.read_folder(folder))
    assert str(caught.value).startswith(str(folder)) and "\n" not in str(caught.value)
    return str(caught.value)


def is_read(folder: Path, arrays: Arrays) -> None:
    """Assert that a folder holds these tensors and no others."""
    found = safetensors_file.read_folder(folder)
    tensors.check_tensors(found)
    assert found.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.tensors[name].read(), array, err_msg=name)


def test_frequencies_of_rotary_positions_are_left_out(tmp_path: Path) -> None:
    for name in ("llama", "gemma3"):
        arrays = tensors.random_tensors(TINY[name], jax.random.key(0))
        buffers = {
            f"model.{place}rotary_emb.inv_freq": np.ones(8, np.float32)
            for place in ("", "layers.0.self_attn.", "layers.1.self_attn.")
        }
        is_read(write_folder(tmp_path / name, TINY[name], arrays | buffers), arrays)


@pytest.mark.parametrize("head", ["lm_head.weight", "language_model.lm_head.weight"])
def test_a_tied_unembedding_in_the_file_is_left_out_if_it_is_the_embedding(head: str, tmp_path: Path) -> None:
    shape = TINY["gemma3" if head.startswith("language") else "llama"]
    assert shape.tied
    arrays = tensors.random_tensors(shape, jax.random.key(0))
    is_read(write_folder(tmp_path / "tied", shape, arrays | {head: arrays[EMBEDDING].copy()}), arrays)
    other = arrays[EMBEDDING].copy()
    other[-1, -1] += 1
    message = refusal(write_folder(tmp_path / "differs", shape, arrays | {head: other}))
    assert f"tensor {head} differs from the embedding, but config.json ties them" in message
    cut = refusal(write_folder(tmp_path / "cut", shape, arrays | {head: other[:-1]}))
    assert f"tensor {head} differs" in cut


@pytest.mark.parametrize("stray", ["consolidated.safetensors", "adapter_model.safetensors"])
def test_strays_beside_the_model_are_left_out(stray: str, tmp_path: Path) -> None:
    other = {"layers.0.attention.wq.weight": np.ones((2, 2), np.float32)}
    folder = write_folder(tmp_path / "whole", files.SHAPE, ARRAYS)
    save_file(other, folder / stray)
    is_read(folder, ARRAYS)
    files.write_hugging_face_folder(tmp_path / "parts", files.SHAPE, ARRAYS, "{}")
    save_file(other, tmp_path / "parts" / stray)
    is_read(tmp_path / "parts", ARRAYS)
    # Shards without an index are a model too.
    (tmp_path / "parts" / safetensors_file.INDEX).unlink()
    is_read(tmp_path / "parts", ARRAYS)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("adapter_model.safetensors", "holds an adapter, not a model; merge it into its model"),
        ("pytorch_model.bin", "holds pytorch_model.bin, and only safetensors are read of a folder; load the"),
        (
            "model.gguf",
            "holds model.gguf, and only safetensors are read of a folder; give the path of the file",
        ),
        (
            "README.md",
            "no safetensors file; fetch the model again, or if it has none, load the model with transformers",
        ),
    ],
)
def test_a_folder_of_other_files_says_what_it_is(file: str, message: str, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", shape_json(files.SHAPE))
    save_file({"a": np.ones(1, np.float32)}, tmp_path / file)
    assert message in refusal(tmp_path)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
def test_causal_masks_of_gpt_2_may_be_of_any_type(dtype: type, tmp_path: Path) -> None:
    """Older versions of transformers wrote them, next to parameters without the name of the body."""
    shape = TINY["gpt2"]
    named = tensors.random_tensors(shape, jax.random.key(2))
    bare = {name.removeprefix("transformer."): array for name, array in named.items()}
    masks = {f"h.{layer}.attn.bias": np.ones((1, 1, 8, 8), dtype) for layer in range(shape.layers)}
    write_json(tmp_path / "config.json", shape_json(shape))
    save_file(bare | masks, tmp_path / "model.safetensors")
    found = safetensors_file.read_folder(tmp_path, "gpt2")
    assert found.tensors.keys() == named.keys()
    np.testing.assert_array_equal(
        found.tensors["transformer.wte.weight"].read(), named["transformer.wte.weight"]
    )
    # Tensors that are read must have a known type.
    save_file(bare | {"wte.weight": bare["wte.weight"].astype(dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(
        PonderTTTError, match=r"tensor wte.weight is of type (BOOL|U8); known: F32, F16, BF16"
    ):
        safetensors_file.read_folder(tmp_path, "gpt2")


@pytest.mark.parametrize(
    "entry",
    [
        7,
        None,
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F32", "data_offsets": [0, 8]},
        {"shape": [2], "data_offsets": [0, 8]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 16]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
    ],
)
def test_a_header_that_is_no_header_of_tensors_is_refused_with_its_file(
    entry: object, tmp_path: Path
) -> None:
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(PonderTTTError) as caught:
        safetensors_file.read_file(path)
    assert str(caught.value).startswith(f"{path}: truncated or not a safetensors file")


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}, {"weight_map": {"a": 1}}])
def test_an_index_that_names_no_files_is_refused(index: object, tmp_path: Path) -> None:
    files.write_hugging_face_folder(tmp_path / "hf", files.SHAPE, ARRAYS, "{}")
    (tmp_path / "hf" / safetensors_file.INDEX).write_text(json.dumps(index))
    message = refusal(tmp_path / "hf")
    assert message.startswith(str(tmp_path / "hf" / safetensors_file.INDEX)) and "damaged" in message
