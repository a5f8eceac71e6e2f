"""Promises of the backbone: it is causal, splits anywhere, ignores padding, takes any length, and has one digest."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

from ponderttt.errors import PonderTTTError
from ponderttt.models import tensors
from ponderttt.models.attention import QUERY_BLOCK, causal_attention, observed_attention
from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.decoder import default_split
from ponderttt.models.families import flops_per_token
from ponderttt.models.families.llama import LlamaConfig
from ponderttt.models.quantised import Precision

LENGTH = QUERY_BLOCK + 22


@pytest.fixture(scope="module")
def tokens(tiny: Backbone) -> Array:
    return jax.random.randint(jax.random.key(1), (2, LENGTH), 0, tiny.config.vocab_size)


@pytest.fixture(scope="module")
def whole(tiny: Backbone, tokens: Array) -> Array:
    return tiny.hidden(tokens)


@pytest.mark.parametrize("place", [0, 70, QUERY_BLOCK - 1, QUERY_BLOCK, LENGTH - 1])
def test_a_changed_token_leaves_everything_before_it_bit_identical(
    tiny: Backbone, tokens: Array, whole: Array, place: int
) -> None:
    changed = tiny.hidden(tokens.at[0, place].set((tokens[0, place] + 1) % tiny.config.vocab_size))
    assert np.array_equal(changed[0, :place], whole[0, :place])
    assert np.array_equal(changed[1], whole[1])
    assert not np.any(np.all(changed[0, place:] == whole[0, place:], axis=-1))


@pytest.mark.parametrize("split", [0, 1, 2, 3])
def test_prefix_and_suffix_at_every_split_make_the_whole(
    tiny: Backbone, tokens: Array, whole: Array, split: int
) -> None:
    graph, params = nnx.split(tensors.assemble(_checkpoint(tiny), split_layer=split))
    parts = dataclasses.replace(tiny, graph=graph, params=params, split_layer=split)
    np.testing.assert_allclose(parts.suffix(parts.prefix(tokens)), whole, atol=1e-6)
    np.testing.assert_allclose(parts.hidden(tokens), whole, atol=1e-6)
    assert tensors.model_digest(graph, params) == tiny.digest


@pytest.mark.parametrize(("layers", "prefix"), [(1, 0), (2, 1), (3, 1), (4, 2), (30, 28)])
def test_the_suffix_has_two_blocks_by_default_and_leaves_one_before_it(layers: int, prefix: int) -> None:
    assert default_split(layers) == prefix


def test_a_suffix_without_blocks_is_the_final_norm(tiny: Backbone, tokens: Array, whole: Array) -> None:
    assert tiny.split_layer == default_split(tiny.config.layers)
    graph, params = nnx.split(tensors.assemble(_checkpoint(tiny), split_layer=tiny.config.layers))
    parts = dataclasses.replace(tiny, graph=graph, params=params, split_layer=tiny.config.layers)
    residual = np.asarray(parts.prefix(tokens), np.float64)
    outer = {name: np.asarray(a, np.float64) for name, a in _outer(tiny).items()}
    if tiny.config.family == "gpt2":
        residual = residual - residual.mean(-1, keepdims=True)
    weight = outer["final_norm"] + (tiny.config.family == "gemma3")
    normed = residual / np.sqrt((residual**2).mean(-1, keepdims=True) + tiny.config.norm_eps) * weight
    np.testing.assert_allclose(whole, normed + outer.get("final_norm_bias", 0.0), atol=1e-5)


@pytest.mark.parametrize("keep", [1, 5, QUERY_BLOCK])
def test_keeping_the_last_positions_still_reads_all_of_them(
    tiny: Backbone, tokens: Array, whole: Array, keep: int
) -> None:
    np.testing.assert_allclose(tiny.hidden(tokens, keep_last=keep), whole[:, -keep:], atol=1e-6)
    alone = tiny.hidden(tokens[:, -keep:])
    assert np.abs(alone - whole[:, -keep:]).max() > 1e-3


@pytest.mark.parametrize("length", [1, 2, 13, QUERY_BLOCK - 1, QUERY_BLOCK + 1])
def test_any_length_reads_the_same_beginning(
    tiny: Backbone, tokens: Array, whole: Array, length: int
) -> None:
    np.testing.assert_allclose(tiny.hidden(tokens[:, :length]), whole[:, :length], atol=1e-5)


def test_padding_after_the_text_changes_no_real_position(tiny: Backbone, tokens: Array, whole: Array) -> None:
    padded = tokens.at[:, 40:].set(tiny.config.pad_id)
    assert np.array_equal(tiny.hidden(padded)[:, :40], whole[:, :40])


def test_padding_before_and_inside_the_text_is_never_attended_to(tiny: Backbone, tokens: Array) -> None:
    pads = jnp.full((2, 9), tiny.config.pad_id, tokens.dtype)
    text = tokens[:, :30]
    # Rotary positions are relative and learned ones count real tokens, so text reads as if it began at position 0.
    shifted = tiny.hidden(jnp.concatenate([pads, text], axis=1))[:, 9:]
    np.testing.assert_allclose(shifted, tiny.hidden(text), atol=1e-4)
    hole = tiny.hidden(text.at[:, 10].set(tiny.config.pad_id))
    other = tiny.suffix(tiny.prefix(text).at[:, 10].set(0.0))
    np.testing.assert_array_equal(hole[:, :10], tiny.hidden(text)[:, :10])
    assert np.all(np.isfinite(hole)) and np.all(np.isfinite(other))


def test_the_suffix_skips_padding_only_if_told_where_it_is(tiny: Backbone, tokens: Array) -> None:
    graph, params = nnx.split(tensors.assemble(_checkpoint(tiny), split_layer=1))
    parts = dataclasses.replace(tiny, graph=graph, params=params, split_layer=1)
    padded = tokens[:, :24].at[:, :7].set(tiny.config.pad_id)
    hidden, real = parts.prefix(padded), padded < tiny.config.vocab_size
    np.testing.assert_allclose(parts.suffix(hidden, real)[:, 7:], tiny.hidden(padded)[:, 7:], atol=1e-6)
    assert np.abs(parts.suffix(hidden)[:, 7:] - tiny.hidden(padded)[:, 7:]).max() > 1e-3


def test_the_pad_id_can_not_be_predicted(tiny: Backbone, whole: Array) -> None:
    logits = tiny.unembed(whole)
    assert logits.shape[-1] == tiny.config.vocab_size == tiny.config.pad_id
    np.testing.assert_allclose(logits, whole @ tiny.unembedding.T, atol=1e-4)


def test_an_untied_model_projects_with_its_own_matrix() -> None:
    config = LlamaConfig(
        vocab_size=11,
        layers=1,
        width=8,
        heads=2,
        kv_heads=2,
        head_dim=4,
        mlp_width=12,
        rope_base=1e4,
        norm_eps=1e-5,
        max_context=64,
        tied=False,
    )
    untied = random_backbone(config, jax.random.key(3))
    model = nnx.merge(untied.graph, untied.params)
    hidden = untied.hidden(jnp.asarray([[1, 2, 3]]))
    assert not np.array_equal(model.outer.embedding[...], untied.unembedding)
    np.testing.assert_allclose(untied.unembed(hidden), hidden @ untied.unembedding.T, atol=1e-5)


def test_blocked_attention_equals_the_plain_formula() -> None:
    keys = jax.random.split(jax.random.key(5), 4)
    length, heads, kv_heads = 2 * QUERY_BLOCK + 3, 6, 2
    query = jax.random.normal(keys[0], (2, length, heads, 4))
    key, value = (jax.random.normal(k, (2, length, kv_heads, 4)) for k in keys[1:3])
    mask = jax.random.bernoulli(keys[3], 0.8, (2, length)).at[:, 0].set(True)
    wide = [np.repeat(np.asarray(a, np.float64), heads // kv_heads, axis=2) for a in (key, value)]
    scores = np.einsum("btnh,bsnh->bnts", np.asarray(query, np.float64), wide[0]) / 2.0
    allowed = np.tril(np.ones((length, length), bool)) & np.asarray(mask)[:, None, None]
    scores = np.where(allowed, scores, -np.inf)
    weight = np.exp(scores - scores.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    expected = np.einsum("bnts,bsnh->btnh", weight, wide[1])
    found = jax.vmap(causal_attention)(query, key, value, mask)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_digest_is_stable_and_sees_a_single_bit(tiny: Backbone) -> None:
    again = random_backbone(tiny.config, jax.random.key(0))
    assert again.digest == tiny.digest == tensors.model_digest(tiny.graph, tiny.params)
    assert random_backbone(tiny.config, jax.random.key(1)).digest != tiny.digest
    for index, leaf in enumerate(jax.tree.leaves(tiny.params)):
        if leaf.size == 0:
            continue
        bits = np.asarray(leaf).copy().view(np.uint32)
        bits.reshape(-1)[-1] ^= 1
        leaves = jax.tree.leaves(tiny.params)
        leaves[index] = jnp.asarray(bits.view(np.float32))
        moved = jax.tree.unflatten(jax.tree.structure(tiny.params), leaves)
        assert tensors.model_digest(tiny.graph, moved) != tiny.digest


def test_bfloat16_stays_near_float32_and_returns_float32(tiny: Backbone, tokens: Array, whole: Array) -> None:
    narrow = random_backbone(tiny.config, jax.random.key(0), precision=Precision("bfloat16"))
    hidden = narrow.hidden(tokens)
    assert narrow.prefix(tokens).dtype == hidden.dtype == narrow.unembedding.dtype == jnp.float32
    assert narrow.digest != tiny.digest
    assert np.sqrt(np.mean(np.square(hidden - whole))) < 0.05 * np.sqrt(np.mean(np.square(whole)))


def test_counted_flops_agree_with_the_compiled_program(tiny: Backbone) -> None:
    # One block, since the cost analysis of a loop counts its body once.
    length, single = 8, dataclasses.replace(tiny.config, layers=1)
    model = random_backbone(single, jax.random.key(0))
    shape = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def logits(params: nnx.State, tokens: Array) -> Array:
        module = nnx.merge(model.graph, params)
        return module.unembed(module.hidden(tokens))

    compiled = jax.jit(logits).lower(model.params, shape).compile()
    counted = compiled.cost_analysis()["flops"]
    by_hand = length * flops_per_token(single, context=length)
    # The program counts norms, rotations and softmax as well.
    assert by_hand <= counted <= 1.35 * by_hand


@pytest.mark.parametrize("over", [1, 88])
def test_more_tokens_than_the_context_holds_are_refused(tiny: Backbone, over: int) -> None:
    limit = tiny.config.max_context
    with pytest.raises(PonderTTTError, match=f"{limit + over} tokens do not fit .* context of {limit}"):
        tiny.hidden(jnp.zeros((1, limit + over), jnp.int32))


def test_a_window_hides_what_is_further_back() -> None:
    keys = jax.random.split(jax.random.key(2), 3)
    length, window = QUERY_BLOCK + 9, 7
    query, key, value = (jax.random.normal(k, (length, 2, 4)) for k in keys)
    real = jnp.ones(length, bool)
    found = causal_attention(query, key, value, real, 0.3, jnp.asarray(window))
    scores = 0.3 * np.einsum("tnh,snh->nts", *(np.asarray(a, np.float64) for a in (query, key)))
    back = np.arange(length)[:, None] - np.arange(length)
    weight = np.where((back >= 0) & (back < window), np.exp(scores), 0.0)
    expected = np.einsum("nts,snh->tnh", weight / weight.sum(-1, keepdims=True), value)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    _, seen = observed_attention(query, key, value, real, length, 0.3, jnp.asarray(window))
    assert float(seen.distance.max()) < window
    np.testing.assert_allclose(seen.sparsity[:, 0], 0.0)


def test_a_gradient_keeps_one_residual_stream_of_each_block_and_nothing_inside_of_it() -> None:
    rows, width = 512, 32

    def needed(layers: int) -> int:
        config = LlamaConfig(
            vocab_size=16,
            layers=layers,
            width=width,
            heads=2,
            kv_heads=2,
            head_dim=16,
            mlp_width=1024,
            norm_eps=1e-5,
            max_context=rows,
            tied=True,
            rope_base=1e4,
        )
        backbone = random_backbone(config, jax.random.key(0), split_layer=0)

        def loss(hidden: Array) -> Array:
            return (
                nnx.merge(backbone.graph, backbone.params).suffix(hidden, jnp.ones(hidden.shape[:2], bool))
                ** 2
            ).sum()

        compiled = jax.jit(jax.grad(loss)).lower(jnp.zeros((1, rows, width))).compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)

    # The inside of an MLP alone is 32 times as wide as the residual stream.
    assert needed(10) - needed(2) <= 8 * 2 * (4 * rows * width)


def _outer(backbone: Backbone) -> dict[str, Array]:
    return nnx.merge(backbone.graph, backbone.params).outer.arrays()


def _checkpoint(backbone: Backbone) -> tensors.Checkpoint:
    arrays = tensors.disassemble(nnx.merge(backbone.graph, backbone.params))
    return tensors.in_memory(backbone.config, arrays)
