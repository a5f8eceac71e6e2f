"""The blocks after the split, as a function of explicit weights, equal the backbone's to the last bit."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import model_files as files
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.models import suffix, weights
from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.quantised import Precision
from ponderttt.models.safetensors_file import BLOCKS_SHARD
from ponderttt.settings.model import ModelConfig, ModelSource
from tiny_llama import tiny_llama
from whole_suffix import run_suffix

TINY = tiny_llama(vocab_size=61, layers=3)
SPLIT, TOKENS, REAL = 1, 40, 33
RUN = jax.jit(run_suffix, static_argnums=0)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return random_backbone(TINY, jax.random.key(0), SPLIT)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    """One sequence that ends in padding."""
    tokens = np.random.default_rng(0).integers(0, TINY.vocab_size, TOKENS)
    tokens[REAL:] = TINY.pad_id
    return tokens


def test_the_suffix_is_the_backbones_including_padding(backbone: Backbone, tokens: np.ndarray) -> None:
    split, mask = backbone.prefix(tokens[None]), tokens < TINY.vocab_size
    found = RUN(TINY, suffix.suffix_weights(backbone), split[0], mask)
    np.testing.assert_allclose(found, backbone.suffix(split, jnp.asarray(mask[None]))[0], atol=2e-6)
    assert found.dtype == jnp.float32


def test_without_blocks_after_the_split_only_the_norm_is_left(tokens: np.ndarray) -> None:
    whole = random_backbone(TINY, jax.random.key(0), TINY.layers)
    split = whole.prefix(tokens[None])
    found = RUN(TINY, suffix.suffix_weights(whole), split[0], tokens < TINY.vocab_size)
    np.testing.assert_allclose(found, whole.suffix(split)[0], atol=2e-6)


def test_it_is_calculated_in_float32_whatever_the_backbone_is(tokens: np.ndarray) -> None:
    coarse = random_backbone(TINY, jax.random.key(0), SPLIT, Precision("bfloat16"))
    held, split = suffix.suffix_weights(coarse), coarse.prefix(tokens[None])
    assert split.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(held)} == {jnp.dtype(jnp.float32)}
    mask = tokens < TINY.vocab_size
    found = RUN(TINY, held, split[0], mask)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, coarse.suffix(split, jnp.asarray(mask[None]))[0], atol=0.1)


def test_no_position_sees_what_comes_after_it(backbone: Backbone) -> None:
    held, mask = suffix.suffix_weights(backbone), np.ones(TOKENS, bool)
    split = jax.random.normal(jax.random.key(1), (TOKENS, TINY.width))
    before = RUN(TINY, held, split, mask)
    after = RUN(TINY, held, split.at[20].add(1.0), mask)
    np.testing.assert_array_equal(before[:20], after[:20])
    assert not np.array_equal(before[20], after[20])
    assert not np.array_equal(before[-1], after[-1])


def test_padding_at_the_end_changes_no_real_position_whatever_the_mask_says(backbone: Backbone) -> None:
    held = suffix.suffix_weights(backbone)
    split = jax.random.normal(jax.random.key(1), (TOKENS, TINY.width))
    masked = RUN(TINY, held, split, np.arange(TOKENS) < REAL)
    np.testing.assert_array_equal(
        masked[:REAL], RUN(TINY, held, split.at[REAL:].set(0.0), np.ones(TOKENS, bool))[:REAL]
    )


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert a GGUF file to a model folder of two blocks."""
    from ponderttt.models.tensors import random_tensors

    folder = tmp_path_factory.mktemp("converted")
    files.write_gguf(folder / "tiny.gguf", files.SHAPE, random_tensors(files.SHAPE, jax.random.key(0)))
    source = ModelConfig("llama", ModelSource("path", path=str(folder / "tiny.gguf")))
    weights.convert(source, folder / "unused", folder / "tiny")
    return folder / "tiny"


@pytest.mark.parametrize("split_layer", [0, 1, 2])
def test_the_suffix_read_alone_is_that_of_the_whole_model(converted: Path, split_layer: int) -> None:
    config, alone = suffix.open_suffix(converted, split_layer)
    whole = suffix.suffix_weights(weights.open_backbone(converted, split_layer=split_layer))
    assert config == files.SHAPE
    assert alone.layers == files.SHAPE.layers - split_layer
    assert alone.blocks.keys() == whole.blocks.keys()
    jax.tree.map(np.testing.assert_array_equal, alone, whole)


def test_a_split_outside_the_model_is_refused_in_one_line(converted: Path) -> None:
    with pytest.raises(PonderTTTError, match=r"split_layer must be from 0 to 2, .*, got 3$"):
        suffix.open_suffix(converted, 3)


def test_a_damaged_file_names_the_command_that_makes_it_again(converted: Path, tmp_path: Path) -> None:
    for file in converted.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data = bytearray((tmp_path / BLOCKS_SHARD).read_bytes())
    data[-5] ^= 1
    (tmp_path / BLOCKS_SHARD).write_bytes(data)
    with pytest.raises(CorruptFileError, match=rf"{BLOCKS_SHARD}.*make it again"):
        suffix.open_suffix(tmp_path, 1, "make it again")
    (tmp_path / BLOCKS_SHARD).unlink()
    with pytest.raises(CorruptFileError, match=rf"{BLOCKS_SHARD}.*make it again"):
        suffix.open_suffix(tmp_path, 1, "make it again")
