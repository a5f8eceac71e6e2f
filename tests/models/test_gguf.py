"""Metadata of a GGUF file is read by type and completely; an error of one line names what is not supported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from gguf import GGUFEndian, GGUFValueType, GGUFWriter

import model_files as files
from ponderttt.errors import PonderTTTError
from ponderttt.models import gguf_file, tensors
from ponderttt.settings.model import ModelConfig, ModelSource
from test_family_files import SHAPES, write_gguf

Changes = Callable[[GGUFWriter], None]
ARRAYS = tensors.random_tensors(files.SHAPE, jax.random.key(0))
FLOAT, STRING, ARRAY, UINT = (
    GGUFValueType.FLOAT32,
    GGUFValueType.STRING,
    GGUFValueType.ARRAY,
    GGUFValueType.UINT32,
)


def with_key(key: str, value: Any, kind: GGUFValueType) -> Changes:
    """Replace or add one metadata key."""

    def change(writer: GGUFWriter) -> None:
        writer.kv_data[0].pop(key, None)
        writer.add_key_value(key, value, kind)

    return change


def written(folder: Path, change: Changes, arrays: dict[str, np.ndarray] = ARRAYS) -> Path:
    files.write_gguf(folder / "tiny.gguf", files.SHAPE, arrays, change=change)
    return folder / "tiny.gguf"


def refusal(path: Path) -> str:
    with pytest.raises(PonderTTTError) as caught:
        gguf_file.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("key", "value", "kind", "message"),
    [
        ("rope.scale_linear", 4.0, FLOAT, "scaled rotary positions (factor 4.0) are not supported"),
        ("rope.scaling.factor", 8.0, FLOAT, "scaled rotary positions (factor 8.0) are not supported"),
        ("rope.scaling.type", "yarn", STRING, "rotary positions scaled by yarn are not supported"),
        ("rope.dimension_count", 8, UINT, "rope.dimension_count is 8 and heads have 16 dimensions; partial"),
        ("attention.causal", False, GGUFValueType.BOOL, "attention.causal is false"),
    ],
)
def test_positions_that_these_models_do_not_have_are_refused(
    key: str, value: Any, kind: GGUFValueType, message: str, tmp_path: Path
) -> None:
    assert message in refusal(written(tmp_path, with_key(f"llama.{key}", value, kind)))


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("rope.scale_linear", 1.0, FLOAT),
        ("rope.scaling.factor", 0.0, FLOAT),
        ("rope.scaling.type", "none", STRING),
        ("rope.dimension_count", 16, UINT),
        # One number for each block.
        ("attention.head_count", [4, 4], ARRAY),
        ("attention.head_count_kv", [2, 2], ARRAY),
        ("feed_forward_length", [96, 96], ARRAY),
    ],
)
def test_keys_that_say_the_same_in_another_way_change_nothing(
    key: str, value: Any, kind: GGUFValueType, tmp_path: Path
) -> None:
    path = written(tmp_path, with_key(f"llama.{key}", value, kind))
    assert gguf_file.GGUFFile(path).config("llama") == files.SHAPE


def test_a_type_of_none_turns_scaling_off(tmp_path: Path) -> None:
    def change(writer: GGUFWriter) -> None:
        with_key("llama.rope.scaling.factor", 8.0, FLOAT)(writer)
        with_key("llama.rope.scaling.type", "none", STRING)(writer)

    assert gguf_file.GGUFFile(written(tmp_path, change)).config() == files.SHAPE


@pytest.mark.parametrize(
    ("key", "value", "kind", "message"),
    [
        (
            "llama.attention.head_count_kv",
            [2, 1],
            ARRAY,
            "must be one whole number of at least 1, got [2, 1]",
        ),
        ("llama.attention.head_count", 0, UINT, "must be one whole number of at least 1, got 0"),
        ("llama.block_count", "2", STRING, "must be one whole number of at least 1, got 2"),
        ("llama.rope.freq_base", 0.0, FLOAT, "must be one number greater than 0, got 0.0"),
        ("llama.attention.layer_norm_rms_epsilon", float("nan"), FLOAT, "greater than 0, got nan"),
        ("general.architecture", 7, UINT, "must be a string, got 7"),
        ("tokenizer.ggml.eos_token_id", [1, 2], ARRAY, "must be one whole number of at least -1, got [1, 2]"),
        ("tokenizer.ggml.token_type", files.KINDS[3:], ARRAY, "must be an array of 270 values, one for each"),
        ("tokenizer.ggml.token_type", ["normal"], ARRAY, "must be an array of int, got ['normal']"),
        ("tokenizer.ggml.merges", "a b", STRING, "must be an array of str, got a b"),
        (
            "tokenizer.ggml.tokens",
            [*files.TOKENS[:-1], b"\xff\xfe"],
            ARRAY,
            r"holds b'\xff\xfe', which is not",
        ),
    ],
)
def test_a_key_of_another_type_is_named(
    key: str, value: Any, kind: GGUFValueType, message: str, tmp_path: Path
) -> None:
    found = refusal(written(tmp_path, with_key(key, value, kind)))
    assert found.startswith(f"metadata key {key} ") and message in found


@pytest.mark.parametrize(("kind", "name"), [(np.float64, "F64"), (np.int8, "I8")])
def test_a_tensor_of_a_type_without_a_reader_is_named(kind: type, name: str, tmp_path: Path) -> None:
    down = "model.layers.1.mlp.down_proj.weight"
    path = written(tmp_path, lambda writer: None, ARRAYS | {down: ARRAYS[down].astype(kind)})
    assert f"tensor blk.1.ffn_down.weight has the type {name}, which is not supported" in refusal(path)


def test_remedies_of_files_that_are_whole_say_more_than_to_fetch_them_again(tmp_path: Path) -> None:
    def part(writer: GGUFWriter) -> None:
        with_key("split.no", 0, GGUFValueType.UINT16)(writer)
        with_key("split.count", 2, GGUFValueType.UINT16)(writer)

    assert "part 1 of 2 of a file; join them with llama-gguf-split --merge" in refusal(
        written(tmp_path, part)
    )
    path = written(tmp_path, lambda writer: None)
    whole = path.read_bytes()
    for version, message in (
        ((1).to_bytes(4, "little"), "GGUF version 1 is not supported, only 2 and 3"),
        ((3).to_bytes(4, "big"), "big-endian, only little-endian is supported; run gguf-convert-endian"),
    ):
        path.write_bytes(whole[:4] + version + whole[8:])
        assert message in refusal(path)
    path.write_bytes(b"tjgg" + whole[4:])
    assert "a format before GGUF" in refusal(path)
    # After its name, a tensor has the number of its dimensions, the dimensions, and its type.
    kind = whole.index(b"blk.0.ffn_norm.weight") + len(b"blk.0.ffn_norm.weight") + 4 + 8
    path.write_bytes(whole[:kind] + (99).to_bytes(4, "little") + whole[kind + 4 :])
    assert "a tensor has the type 99, which is not known" in refusal(path)
    path.write_bytes(whole.replace(b"blk.0.ffn_norm.weight", b"blk.1.ffn_norm.weight"))
    assert "tensor blk.1.ffn_norm.weight is in the file twice" in refusal(path)
    path.write_bytes(whole.replace(b"tokenizer.ggml.tokens", b"tokenizer.ggml.merges"))
    assert "metadata key tokenizer.ggml.merges is in the file twice" in refusal(path)
    path.write_bytes(whole.replace(b"llama.block_count", b"llama.block_bytes"))
    assert "metadata key llama.block_count is missing" in refusal(path)


def test_big_endian_numbers_are_never_read_as_others(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "big.gguf", "llama", endianess=GGUFEndian.BIG)
    writer.add_tensor("token_embd.weight", np.ones((2, 32), np.float32))
    files.finish_gguf(writer)
    assert "big-endian" in refusal(tmp_path / "big.gguf")


@pytest.mark.parametrize(
    ("key", "value", "kind", "field", "expected"),
    [
        # Without a type llama.cpp scales linearly.
        ("gemma3.rope.scaling.type", None, STRING, "global_rope_factor", 8.0),
        ("gemma3.rope.scaling.type", "none", STRING, "global_rope_factor", 1.0),
        ("gemma3.attention.sliding_window_pattern", 3, UINT, "global_every", 3),
        ("tokenizer.ggml.bos_token_id", 5, UINT, "bos_id", 5),
    ],
)
def test_keys_of_gemma_3_are_read(
    key: str, value: Any, kind: GGUFValueType, field: str, expected: Any, tmp_path: Path
) -> None:
    shape = SHAPES["gemma3"]

    def change(writer: GGUFWriter) -> None:
        writer.kv_data[0].pop(key, None)
        if value is not None:
            writer.add_key_value(key, value, kind)

    arrays = tensors.random_tensors(shape, jax.random.key(0))
    path = write_gguf(tmp_path / "tiny.gguf", shape, arrays, change)
    assert getattr(gguf_file.GGUFFile(path).config(), field) == expected
    with pytest.raises(PonderTTTError, match=r"final_logit_softcapping is 30\.0"):
        capped = with_key("gemma3.final_logit_softcapping", 30.0, FLOAT)
        gguf_file.read(write_gguf(tmp_path / "capped.gguf", shape, arrays, capped))


def test_an_array_of_equal_numbers_is_a_model_that_loads(tmp_path: Path) -> None:
    path = written(tmp_path, with_key("llama.attention.head_count_kv", [2, 2], ARRAY))
    backbone = files.load_backbone(ModelConfig("llama", ModelSource("path", path=str(path))))
    found = tensors.disassemble(nnx.merge(backbone.graph, backbone.params))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
