"""Loading is exact and strict: it uses every tensor, fills every parameter, and names damage in one line."""

from __future__ import annotations

import dataclasses
import json
import re
import weakref
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from safetensors.numpy import load_file, save_file

import model_files as files
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.files.atomic import write_json
from ponderttt.models import gguf_file, parameter, tensors, weights
from ponderttt.models.fastest import faster, fastest_dtype
from ponderttt.models.quantised import Precision
from ponderttt.models.safetensors_file import BLOCKS_SHARD, UNEMBEDDING_SHARD
from ponderttt.models.tokenizer_tables import from_vocabulary
from ponderttt.settings.model import ModelConfig, ModelSource

Arrays = dict[str, np.ndarray]
QUERY = "model.layers.1.self_attn.q_proj.weight"
TOKENS = files.TOKENS
TOKENIZER_JSON = from_vocabulary(files.TOKENS, files.KINDS, files.MERGES, "smollm").json


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return tensors.random_tensors(files.SHAPE, jax.random.key(0))


@pytest.fixture(scope="module")
def gguf_path(arrays: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    files.write_gguf(path, files.SHAPE, arrays)
    return path


@pytest.fixture(scope="module")
def converted(gguf_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    weights.convert(config_for(gguf_path), folder / "unused", folder / "tiny")
    return folder / "tiny"


def config_for(path: Path, **settings: object) -> ModelConfig:
    return ModelConfig("llama", ModelSource("path", path=str(path)), **settings)  # type: ignore[arg-type]


def loaded(path: Path) -> Arrays:
    backbone = files.load_backbone(config_for(path))
    return tensors.disassemble(nnx.merge(backbone.graph, backbone.params))


def refusal(path: Path) -> str:
    """Return the line of the error for a model."""
    with pytest.raises(PonderTTTError) as caught:
        files.load_backbone(config_for(path))
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_a_float32_gguf_gives_back_every_tensor_bit_for_bit(arrays: Arrays, gguf_path: Path) -> None:
    found = loaded(gguf_path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    # The file holds rows in another order, so the reader restores the order.
    assert not np.array_equal(files.interleave(arrays[QUERY], files.SHAPE.heads), arrays[QUERY])


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", *files.K_SCALES])
def test_a_quantised_gguf_gives_the_values_that_were_stored(kind: str, tmp_path: Path) -> None:
    quantised, shape = GGMLQuantizationType[kind], files.K_SHAPE if kind in files.K_SCALES else files.SHAPE
    arrays = tensors.random_tensors(shape, jax.random.key(0))
    files.write_gguf(tmp_path / "tiny.gguf", shape, arrays, quantised)
    found = loaded(tmp_path / "tiny.gguf")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        stored = array
        if array.ndim == 2:
            heads = {"q_proj": shape.heads, "k_proj": shape.kv_heads}.get(name.split(".")[-2])
            rows = files.interleave(array, heads) if heads else array
            stored = dequantize(files.quantised(rows, quantised), quantised)
            if heads:
                stored = undone(stored, heads)
        np.testing.assert_array_equal(found[name], stored, err_msg=name)
        assert (array.ndim == 1) == np.array_equal(stored, array)


def undone(rows: np.ndarray, heads: int) -> np.ndarray:
    """Restore the order of rows before :func:`model_files.interleave`."""
    order = files.interleave(np.arange(len(rows)), heads)
    return rows[np.argsort(order)]


def test_one_model_has_one_digest_whatever_file_it_came_from(
    arrays: Arrays, gguf_path: Path, converted: Path, tmp_path: Path
) -> None:
    files.write_hugging_face_folder(tmp_path / "hf", files.SHAPE, arrays, TOKENIZER_JSON)
    first = files.load_backbone(config_for(gguf_path))
    second = files.load_backbone(config_for(tmp_path / "hf"))
    third = weights.open_backbone(converted)
    split = weights.open_backbone(converted, split_layer=1)
    assert first.config == second.config == third.config == files.SHAPE
    assert first.digest == second.digest == third.digest == split.digest
    assert third.digest == tensors.model_digest(third.graph, third.params)
    for backbone in (first, second, third):
        assert backbone.tokenizer is not None
        assert backbone.tokenizer.digest == first.tokenizer.digest  # type: ignore[union-attr]
    tokens = jnp.asarray([[5, 9, 33, 7, 200]])
    np.testing.assert_array_equal(first.hidden(tokens), third.hidden(tokens))
    np.testing.assert_allclose(split.suffix(split.prefix(tokens)), third.hidden(tokens), atol=1e-6)


def test_what_ends_a_text_is_what_the_files_say(
    arrays: Arrays, gguf_path: Path, converted: Path, tmp_path: Path
) -> None:
    """Tokens known by name also end a text: end of text, and end of a turn."""
    known = {TOKENS.index("<|endoftext|>"), TOKENS.index("<|im_end|>")}
    stated = known | {TOKENS.index("<|im_start|>")}
    for backbone in (
        files.load_backbone(config_for(gguf_path)),
        weights.open_backbone(converted),
    ):
        assert backbone.tokenizer is not None and backbone.tokenizer.end_ids == stated
    folder = tmp_path / "hf"
    files.write_hugging_face_folder(folder, files.SHAPE, arrays, TOKENIZER_JSON)

    def ends(config: object, generation: object) -> set[int]:
        settings = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", {**settings, "eos_token_id": config})
        write_json(folder / "generation_config.json", {"eos_token_id": generation})
        reader = files.load_backbone(config_for(folder)).tokenizer
        assert reader is not None
        return set(reader.end_ids)

    assert ends(None, None) == known
    assert ends(7, [9, 11, len(TOKENS) + 3]) == known | {7, 9, 11}
    with pytest.raises(PonderTTTError, match=r"generation_config\.json: eos_token_id \['<eos>'\] is not"):
        ends(None, "<eos>")


def test_the_unembedding_alone_is_the_backbones(converted: Path) -> None:
    alone, backbone = weights.open_unembedding(converted), weights.open_backbone(converted)
    np.testing.assert_array_equal(alone.matrix, backbone.unembedding)
    assert alone.config == backbone.config
    assert alone.facts["digest"] == backbone.digest
    assert alone.facts["pad_id"] == files.SHAPE.vocab_size
    assert alone.facts["eot_id"] == 0


def test_a_converted_model_is_an_ordinary_safetensors_folder(arrays: Arrays, converted: Path) -> None:
    found: Arrays = {}
    for shard in (UNEMBEDDING_SHARD, BLOCKS_SHARD):
        found |= load_file(converted / shard)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_opening_a_converted_model_maps_whole_stacks_and_copies_none(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> np.ndarray:
        raise AssertionError("copied")

    monkeypatch.setattr(parameter, "_empty", refuse)
    weights.open_backbone(converted)
    with pytest.raises(AssertionError, match="copied"):
        weights.open_backbone(converted, Precision("bfloat16"))


def test_converting_holds_one_tensor_at_a_time_and_opening_one_parameter(
    arrays: Arrays, gguf_path: Path, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def counted(original: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def read(*arguments: object) -> np.ndarray:
            nonlocal most
            array = original(*arguments)
            alive.append(weakref.ref(array))
            most = max(most, sum(reference() is not None for reference in alive))
            return array

        return read

    monkeypatch.setattr(gguf_file, "_read", counted(gguf_file._read))
    weights.convert(config_for(gguf_path), tmp_path, tmp_path / "again")
    assert len(alive) == len(arrays)
    assert most <= 2  # the one that is written, and the next
    alive.clear()
    most = 0
    # Narrower than the file, so every parameter is copied, and moved to its devices, before the next one is read.
    monkeypatch.setattr(parameter, "_empty", counted(parameter._empty))
    monkeypatch.setattr(parameter, "placed", lambda name, value, mesh, stacked: jnp.array(value, copy=True))
    weights.open_backbone(converted, Precision("bfloat16"))
    assert most <= 2
    assert len(alive) > 10


def test_bfloat16_parameters_are_the_rounded_ones(arrays: Arrays, converted: Path) -> None:
    narrow = weights.open_backbone(converted, Precision("bfloat16"))
    found = tensors.disassemble(nnx.merge(narrow.graph, narrow.params))
    np.testing.assert_array_equal(found[QUERY], arrays[QUERY].astype(ml_dtypes.bfloat16))
    assert narrow.digest != weights.open_backbone(converted).digest


def test_half_precision_safetensors_are_read_as_float32(arrays: Arrays, tmp_path: Path) -> None:
    files.write_hugging_face_folder(tmp_path / "hf", files.SHAPE, arrays, TOKENIZER_JSON)
    (tmp_path / "hf" / "model.safetensors.index.json").unlink()
    for shard in (tmp_path / "hf").glob("*.safetensors"):
        shard.unlink()
    rounded = {name: array.astype(ml_dtypes.bfloat16) for name, array in arrays.items()}
    save_file(rounded, tmp_path / "hf" / "model.safetensors")
    found = loaded(tmp_path / "hf")
    np.testing.assert_array_equal(found[QUERY], rounded[QUERY].astype(np.float32))


@pytest.mark.parametrize("kind", ["gguf", "hf"])
def test_a_missing_an_extra_and_a_mis_shaped_tensor_are_named(
    kind: str, arrays: Arrays, tmp_path: Path
) -> None:
    def write(changed: Arrays) -> Path:
        path = tmp_path / kind
        if kind == "gguf":
            files.write_gguf(path, files.SHAPE, changed)
        else:
            files.write_hugging_face_folder(path, files.SHAPE, changed, TOKENIZER_JSON)
        return path

    name = files.gguf_name(QUERY) if kind == "gguf" else QUERY
    without = {key: array for key, array in arrays.items() if key != QUERY}
    assert f"tensor {name} is missing" in refusal(write(without))
    extra = arrays | {"model.layers.0.self_attn.q_proj.bias": np.zeros(3, np.float32)}
    if kind == "gguf":
        extra = arrays | {"blk.0.attn_q.bias": np.zeros(3, np.float32)}
    assert f"tensor {list(extra)[-1]} is not part of a plain llama model" in refusal(write(extra))
    wrong = arrays | {QUERY: arrays[QUERY][:, :32]}
    assert re.search(rf"tensor {re.escape(name)} has shape \(64, 32\).*\(64, 64\)", refusal(write(wrong)))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_gguf_is_refused_with_its_name(share: float, gguf_path: Path, tmp_path: Path) -> None:
    whole = gguf_path.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(share * len(whole))])
    assert "truncated or not a GGUF file" in refusal(tmp_path / "cut.gguf")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_truncated_safetensors_are_refused_with_their_name(
    share: float, arrays: Arrays, tmp_path: Path
) -> None:
    files.write_hugging_face_folder(tmp_path / "hf", files.SHAPE, arrays, TOKENIZER_JSON)
    shard = tmp_path / "hf" / "model-00002-of-00002.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: int(share * len(whole))])
    message = refusal(tmp_path / "hf")
    assert str(shard) in message and "truncated" in message


def test_other_models_are_refused_by_what_they_are(arrays: Arrays, tmp_path: Path) -> None:
    files.write_gguf(tmp_path / "other.gguf", files.SHAPE, arrays, architecture="qwen2")
    assert "holds a qwen2 model" in refusal(tmp_path / "other.gguf")
    files.write_gguf(tmp_path / "split.gguf", files.SHAPE, arrays, splitter="deepseek-coder")
    assert "unknown pre-tokenizer deepseek-coder" in refusal(tmp_path / "split.gguf")
    files.write_hugging_face_folder(tmp_path / "hf", files.SHAPE, arrays, TOKENIZER_JSON)
    settings = json.loads((tmp_path / "hf" / "config.json").read_text())
    for change, message in (
        ({"model_type": "gemma3"}, "holds a gemma3 model; family llama expects llama"),
        ({"model_type": "qwen2"}, "holds a qwen2 model"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "scaled rotary"),
        ({"hidden_act": "gelu"}, "hidden_act gelu is not supported, only silu"),
    ):
        (tmp_path / "hf" / "config.json").write_text(json.dumps(settings | change))
        assert message in refusal(tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text("{")
    assert "not readable as JSON" in refusal(tmp_path / "hf")


def test_a_split_outside_the_model_is_refused(gguf_path: Path) -> None:
    with pytest.raises(
        PonderTTTError, match=r"split_layer must be from 0 to 2, the number of blocks of .*, got 3"
    ):
        files.load_backbone(config_for(gguf_path, split_layer=3))


def test_a_flipped_byte_in_a_converted_model_names_the_file_and_the_command(
    gguf_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny"
    weights.convert(config_for(gguf_path), tmp_path, folder)
    for shard in (BLOCKS_SHARD, UNEMBEDDING_SHARD):
        data = bytearray((folder / shard).read_bytes())
        data[-5] ^= 1
        (folder / shard).write_bytes(data)
        with pytest.raises(CorruptFileError, match=f"{shard}.*make it again"):
            weights.open_backbone(folder, rebuild="make it again")
    with pytest.raises(CorruptFileError, match=f"{UNEMBEDDING_SHARD}.*make it again"):
        weights.open_unembedding(folder, rebuild="make it again")


def test_an_untied_model_keeps_its_own_unembedding_through_conversion(tmp_path: Path) -> None:
    untied = dataclasses.replace(files.SHAPE, tied=False)
    arrays = tensors.random_tensors(untied, jax.random.key(1))
    files.write_gguf(tmp_path / "untied.gguf", untied, arrays)
    weights.convert(config_for(tmp_path / "untied.gguf"), tmp_path, tmp_path / "out")
    assert weights.open_backbone(tmp_path / "out").config == untied
    np.testing.assert_array_equal(weights.open_unembedding(tmp_path / "out").matrix, arrays["lm_head.weight"])


@pytest.mark.parametrize("measured", ["float32", "bfloat16"])
def test_dtype_auto_opens_a_model_in_the_dtype_that_was_faster_where_it_was_converted(
    gguf_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: str
) -> None:
    monkeypatch.setattr(weights, "fastest_dtype", lambda shape: measured)
    config = dataclasses.replace(config_for(gguf_path), dtype="auto")
    weights.convert(config, tmp_path, tmp_path / "out")
    opened = weights.open_configured(config, tmp_path / "out", "make it again")
    same = weights.open_backbone(tmp_path / "out", Precision(measured))
    assert opened.digest == same.digest
    assert nnx.merge(opened.graph, opened.params).outer.arrays()["final_norm"].dtype == measured


def test_dtype_auto_refuses_a_model_that_was_converted_without_a_measurement(
    gguf_path: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(config_for(gguf_path), dtype="auto")
    weights.convert(config, tmp_path, tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    text = json.loads(manifest.read_text())
    del text["facts"][weights.FASTEST]
    manifest.write_text(json.dumps(text))
    with pytest.raises(
        PonderTTTError, match=r"dtype auto: .* does not say which dtype is faster; make it again"
    ):
        weights.open_configured(config, tmp_path / "out", "make it again")


def test_bfloat16_is_taken_only_if_it_is_faster_by_a_quarter() -> None:
    assert faster(float32=1.25, bfloat16=1.0) == "bfloat16"
    assert faster(float32=1.24, bfloat16=1.0) == "float32"
    assert fastest_dtype(files.SHAPE) in ("float32", "bfloat16")
