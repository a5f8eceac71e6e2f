"""TTT-Linear: the dual form equals the primal form, causality holds token by token, and masked tokens teach nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.fast_weights.base import Chunk, Readout
from ponderttt.fast_weights.ttt import NORM_EPSILON, TOKEN_GRADIENT_LIMIT, TTTFast, causal_depthwise_conv
from ponderttt.models.losses import frozen_logits
from tiny_streams import CHUNK, TINY, VOCABULARY, fresh, tree_close

HEADS, HEAD_DIM, BATCH = TINY.ttt.heads, TINY.ttt.head_dim, TINY.ttt.mini_batch


@pytest.fixture(scope="module")
def module(awake_modules):
    return awake_modules["ttt"]


@pytest.fixture(scope="module")
def chunk(streams):
    return Chunk(*(jnp.asarray(getattr(streams[0], name)[0]) for name in Chunk._fields))


@pytest.fixture(scope="module")
def readout(chunk, unembedding):
    return Readout(unembedding, frozen_logits(chunk.hidden, unembedding))


def primal(module, inputs, fast: TTTFast, passes: int) -> tuple[np.ndarray, TTTFast]:
    """Token by token in numpy: W_t is formed for every token, gradients by the algebra written out.

    Returns what each query reads from W_t in the last pass, and the weights at the end.
    """
    scale, shift = (
        np.asarray(module.norm_scale[...], np.float64),
        np.asarray(module.norm_bias[...], np.float64),
    )
    q, k, v, rate = (np.asarray(x, np.float64) for x in inputs)
    weight, bias = np.asarray(fast.weight, np.float64), np.asarray(fast.bias, np.float64)
    reads = np.zeros_like(q)
    for _ in range(passes):
        for start in range(0, len(q), BATCH):
            start_weight, start_bias = weight.copy(), bias.copy()
            for t in range(start, min(start + BATCH, len(q))):
                for h in range(HEADS):
                    linear = k[t, h] @ start_weight[h] + start_bias[h]
                    centred = linear - linear.mean()
                    deviation = np.sqrt((centred**2).mean() + NORM_EPSILON)
                    unit = centred / deviation
                    error = (unit * scale[h] + shift[h] - (v[t, h] - k[t, h])) * scale[h]
                    # Derivative of layer normalisation.
                    gradient = (error - error.mean() - unit * (error * unit).mean()) / deviation
                    squared = (1 + k[t, h] @ k[t, h]) * (gradient @ gradient)
                    gradient *= min(1.0, TOKEN_GRADIENT_LIMIT * HEAD_DIM / np.sqrt(squared + NORM_EPSILON))
                    weight[h] -= rate[t, h] * np.outer(k[t, h], gradient)
                    bias[h] -= rate[t, h] * gradient
                    reads[t, h] = q[t, h] @ weight[h] + bias[h]
    return reads, TTTFast(weight, bias)


def unequal(inputs):
    """The inputs with rates that differ from token to token by an order of magnitude."""
    spread = jnp.linspace(0.1, 3.0, inputs.rate.shape[0])[:, None] * jnp.asarray([1.0, 0.4])
    return inputs._replace(rate=inputs.rate * spread * 5)


def test_dual_form_equals_the_sequential_primal_form_with_unequal_rates(module, chunk):
    inputs = unequal(module.inner_inputs(chunk.hidden, chunk.mask))
    expected_reads, expected_fast = primal(module, inputs, module.reset(), passes=1)
    fast, reads = module.reset(), []
    for start in range(0, CHUNK, BATCH):
        batch = jax.tree.map(lambda x, s=start: x[s : s + BATCH], inputs)
        gradient, _ = module.inner_gradient(fast, batch)
        reads.append(module.dual_read(fast, batch, gradient))
        fast = module._after(fast, batch, gradient)
    np.testing.assert_allclose(jnp.concatenate(reads), expected_reads, rtol=1e-4, atol=1e-4)
    assert tree_close(fast, jax.tree.map(jnp.asarray, expected_fast), 1e-4)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_update_k_is_k_sequential_passes(module, chunk, readout, steps):
    inputs = module.inner_inputs(chunk.hidden, chunk.mask)
    _, expected = primal(module, inputs, module.reset(), passes=steps)
    found = module.adapt(module.reset(), chunk, readout, steps).fast
    assert tree_close(found, jax.tree.map(jnp.asarray, expected), 1e-4)
    assert not tree_close(found, module.reset(), 1e-4)


def test_inner_gradient_is_the_gradient_of_the_inner_loss_clipped_token_by_token(module, chunk):
    """At wide inner weights no token's gradient is clipped; at narrow ones every token's is."""
    inputs = module.inner_inputs(chunk.hidden, chunk.mask)
    wide = module.reset()._replace(weight=20.0 * module.reset().weight)
    narrow = module.reset()._replace(weight=0.01 * module.reset().weight)
    for fast in (wide, narrow):
        gradient, _ = module.inner_gradient(fast, inputs)
        for t in (0, 7, CHUNK - 1):
            one = jax.tree.map(lambda x, t=t: x[t : t + 1], inputs)
            expected = jax.grad(lambda f, one=one: jnp.sum(module.inner_gradient(f, one)[1]))(fast)
            for head in range(HEADS):
                whole = jnp.sqrt(jnp.sum(expected.weight[head] ** 2) + jnp.sum(expected.bias[head] ** 2))
                scale = jnp.minimum(1.0, TOKEN_GRADIENT_LIMIT * HEAD_DIM / whole)
                assert (scale == 1) == (fast is wide)
                np.testing.assert_allclose(
                    gradient[t, head], scale * expected.bias[head], rtol=2e-3, atol=1e-4
                )


def test_few_tokens_are_clipped_at_the_start(module, chunk):
    """Clipping is for outliers: if every gradient were clipped, the inner rate would not set the size of steps."""
    inputs = module.inner_inputs(chunk.hidden, chunk.mask)
    gradient, _ = module.inner_gradient(module.reset(), inputs)
    norms = jnp.sqrt((1 + jnp.sum(inputs.key**2, -1)) * jnp.sum(gradient**2, -1))
    assert jnp.mean(norms > 0.99 * TOKEN_GRADIENT_LIMIT * HEAD_DIM) < 0.1
    assert jnp.median(norms) < 0.5 * TOKEN_GRADIENT_LIMIT * HEAD_DIM


def test_keys_start_at_the_token_before_the_value():
    """The inner model starts as a memory of successors."""
    module = fresh("ttt")
    assert int(jnp.argmax(jnp.abs(module.key_kernel[...]).mean(1))) == TINY.ttt.conv_width - 2
    assert int(jnp.argmax(jnp.abs(module.query_kernel[...]).mean(1))) == TINY.ttt.conv_width - 1


def test_learning_lowers_the_reconstruction_loss(module, chunk, readout):
    first = module.adapt(module.reset(), chunk, readout, 4)
    second = module.adapt(first.fast, chunk, readout, 1)
    assert second.inner_loss < first.inner_loss


def test_the_convolution_sees_the_current_token_and_exactly_the_width_before_it():
    width, position = TINY.ttt.conv_width, 10
    kernel, bias = jnp.ones((width, 3)), jnp.zeros(3)

    def output(x):
        return causal_depthwise_conv(x, kernel, bias)[position, 0]

    touched = np.flatnonzero(np.abs(jax.grad(output)(jnp.ones((20, 3)))).sum(-1))
    assert list(touched) == list(range(position - width + 1, position + 1))


@pytest.mark.parametrize("changed", [0, 1, 15, 16, 33, CHUNK - 1])
def test_in_chunk_reading_is_causal_bit_for_bit(module, chunk, readout, changed):
    read = jax.jit(lambda c, r: module.score_and_adapt_in_chunk(module.reset(), c, r)[0])
    hidden = chunk.hidden.at[changed].add(1.0)
    logits = readout.logits.at[changed].add(jnp.linspace(0, 1, VOCABULARY))
    before, after = read(chunk, readout), read(chunk._replace(hidden=hidden), readout._replace(logits=logits))
    assert np.array_equal(before[:changed], after[:changed])
    assert not np.array_equal(before[changed:], after[changed:])


def test_in_chunk_reading_never_looks_at_labels(module, chunk, readout):
    shuffled = chunk._replace(targets=chunk.targets[::-1])
    a = module.score_and_adapt_in_chunk(module.reset(), chunk, readout)[1]
    b = module.score_and_adapt_in_chunk(module.reset(), shuffled, readout)[1]
    assert np.array_equal(a.fast.weight, b.fast.weight)


def test_in_chunk_pass_ends_with_the_weights_of_update_1(module, chunk, readout):
    after = module.score_and_adapt_in_chunk(module.reset(), chunk, readout)[1].fast
    assert tree_close(after, module.adapt(module.reset(), chunk, readout, 1).fast, 1e-5)


def test_masked_tokens_teach_nothing(module, chunk, readout):
    mask = jnp.arange(CHUNK) < 20
    dirty = chunk.hidden.at[20:].set(5.0)
    clean = module.adapt(module.reset(), chunk._replace(mask=mask), readout, 2).fast
    other = module.adapt(module.reset(), chunk._replace(mask=mask, hidden=dirty), readout, 2).fast
    assert np.array_equal(clean.weight, other.weight)


@pytest.mark.parametrize("length", [1, 16, 17])
def test_any_length_works_whatever_the_mini_batch(module, chunk, unembedding, length):
    short = Chunk(*(field[:length] for field in chunk))
    readout = Readout(unembedding, frozen_logits(short.hidden, unembedding))
    nll, adapted = module.score_and_adapt_in_chunk(module.reset(), short, readout)
    _, expected = primal(module, module.inner_inputs(short.hidden, short.mask), module.reset(), passes=1)
    assert nll.shape == (length,)
    assert tree_close(adapted.fast, jax.tree.map(jnp.asarray, expected), 1e-4)


def test_fast_weights_are_float32_whatever_the_hidden_state(module):
    assert {leaf.dtype for leaf in jax.tree.leaves(module.reset())} == {jnp.dtype("float32")}
