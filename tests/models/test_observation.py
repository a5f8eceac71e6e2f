"""Attention statistics equal the plain [T, T] formulas, and observing changes hidden states only by rounding."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import Array

from ponderttt.costs import count_flops
from ponderttt.models import tensors
from ponderttt.models.attention import (
    QUERY_BLOCK,
    SPARSE_SHARE,
    AttentionStatistics,
    causal_attention,
    observed_attention,
)
from ponderttt.models.backbone import Backbone

LENGTH, HEADS, KV_HEADS, HEAD_DIM = 2 * QUERY_BLOCK + 3, 6, 2, 4

observe = jax.jit(observed_attention, static_argnums=4)


@pytest.fixture(scope="module")
def heads() -> tuple[Array, Array, Array]:
    """Queries, keys and values; scores are spread enough for some keys to be ignored."""
    keys = jax.random.split(jax.random.key(5), 3)
    query = 3 * jax.random.normal(keys[0], (LENGTH, HEADS, HEAD_DIM))
    key, value = (jax.random.normal(k, (LENGTH, KV_HEADS, HEAD_DIM)) for k in keys[1:])
    return query, key, value


def by_definition(query: Array, key: Array, mask: np.ndarray) -> AttentionStatistics:
    """Compute one head and one query at a time, without the keys that it may not see."""
    statistics = np.zeros((3, HEADS, LENGTH))
    for head in range(HEADS):
        keys = np.asarray(key[:, head // (HEADS // KV_HEADS)], np.float64)
        for i in range(LENGTH):
            seen = np.flatnonzero(mask[: i + 1])
            if len(seen) == 0:
                continue
            scores = keys[seen] @ np.asarray(query[i, head], np.float64) / np.sqrt(HEAD_DIM)
            weight = np.exp(scores - scores.max())
            weight /= weight.sum()
            statistics[:, head, i] = (
                -(weight * np.log(np.maximum(weight, 1e-300))).sum(),
                (weight * (i - seen)).sum(),
                np.mean(weight < SPARSE_SHARE / len(seen)),
            )
    return AttentionStatistics(*statistics)


@pytest.mark.parametrize("padding", ["none", "after", "before and inside"])
@pytest.mark.parametrize("last", [LENGTH, QUERY_BLOCK, 5])
def test_statistics_equal_the_plain_formulas(
    heads: tuple[Array, Array, Array], padding: str, last: int
) -> None:
    mask = np.ones(LENGTH, bool)
    if padding == "after":
        mask[200:] = False
    elif padding == "before and inside":
        mask[:7] = mask[100:140] = False
    read, found = observe(*heads, jnp.asarray(mask), last)
    for name, values, expected in zip(found._fields, found, by_definition(*heads[:2], mask), strict=True):
        assert values.shape == (HEADS, last)
        np.testing.assert_allclose(values, expected[:, -last:], atol=2e-4, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(read, jax.jit(causal_attention)(*heads, jnp.asarray(mask)), atol=1e-6)


def test_the_first_query_has_one_key_and_equal_keys_have_equal_weights() -> None:
    same = jnp.ones((8, 1, 4))
    _, found = observe(same, same, same, jnp.ones(8, bool), 8)
    position = np.arange(8)
    np.testing.assert_allclose(found.entropy[0], np.log(position + 1), atol=1e-6)
    np.testing.assert_allclose(found.distance[0], position / 2, atol=1e-6)
    assert np.all(np.asarray(found.sparsity) == 0)
    # Queries 0 … 2 see padding only.
    _, padded = observe(same, same, same, jnp.arange(8) >= 3, 8)
    for values in padded:
        assert np.all(np.asarray(values[0, :4]) == 0)
    np.testing.assert_allclose(padded.distance[0, 3:], np.arange(5) / 2, atol=1e-6)


def test_a_query_that_reads_one_key_passes_over_the_others() -> None:
    key = jnp.zeros((21, 1, 2)).at[0, 0, 0].set(1.0)
    query = jnp.zeros((21, 1, 2)).at[:, 0, 0].set(100.0)
    _, found = observe(query, key, key, jnp.ones(21, bool), 1)
    np.testing.assert_allclose(found.entropy, 0, atol=1e-6)
    np.testing.assert_allclose(found.distance, 20, rtol=1e-6)
    np.testing.assert_allclose(found.sparsity, 20 / 21, rtol=1e-6)


def test_one_future_token_changes_no_statistic_before_it(heads: tuple[Array, Array, Array]) -> None:
    place, mask = 150, jnp.ones(LENGTH, bool)
    _, before = observe(*heads, mask, LENGTH)
    _, after = observe(*(part.at[place].add(1.0) for part in heads), mask, LENGTH)
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(a[:, :place], b[:, :place])
    assert np.any(after.entropy[:, place:] != before.entropy[:, place:])


@pytest.mark.parametrize("split", [0, 1])
@pytest.mark.parametrize("keep", [QUERY_BLOCK, 40])
def test_observing_the_suffix_changes_hidden_states_by_rounding_alone(
    tiny: Backbone, split: int, keep: int
) -> None:
    arrays = tensors.disassemble(nnx.merge(tiny.graph, tiny.params))
    graph, params = nnx.split(tensors.assemble(tensors.in_memory(tiny.config, arrays), split_layer=split))
    model = dataclasses.replace(tiny, graph=graph, params=params, split_layer=split)
    tokens = jax.random.randint(jax.random.key(1), (2, QUERY_BLOCK + 22), 0, tiny.config.pad_id)
    tokens = tokens.at[1, -9:].set(tiny.config.pad_id)
    states, real = model.prefix(tokens), tokens < tiny.config.pad_id

    @jax.jit
    def observed(params: nnx.State, states: Array) -> tuple[Array, AttentionStatistics]:
        return nnx.merge(graph, params).observed_suffix(states, real, keep)

    hidden, statistics = observed(params, states)
    # A program that observes is compiled differently, so the last bits differ.
    np.testing.assert_allclose(hidden, model.suffix(states, real, keep), atol=2e-6)
    np.testing.assert_allclose(hidden, tiny.hidden(tokens, keep), atol=1e-5)
    layers = tiny.config.layers - split
    for values in statistics:
        assert values.shape == (layers, 2, tiny.config.heads, keep)
        assert np.all(np.isfinite(values)) and np.all(np.asarray(values) >= -1e-4)
    # Blocks and heads attend differently.
    assert len({float(v) for v in np.asarray(statistics.entropy).mean(axis=(1, 3)).reshape(-1)}) == layers * 4


def test_observing_is_a_small_share_of_the_work() -> None:
    length, heads, width = 512, 9, 64
    shape = jax.ShapeDtypeStruct((length, heads, width), jnp.float32)
    keys = jax.ShapeDtypeStruct((length, 3, width), jnp.float32)
    mask = jax.ShapeDtypeStruct((length,), jnp.bool_)
    plain = count_flops(causal_attention, shape, keys, keys, mask)
    watched = count_flops(lambda *a: observed_attention(*a, length), shape, keys, keys, mask)
    assert plain < watched < 1.1 * plain
