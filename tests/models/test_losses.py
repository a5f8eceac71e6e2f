"""The blocked losses equal the plain formulas, in value and gradient, and never hold a [T, V] array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from ponderttt.models import losses

ROWS, WIDTH, RANK = 12, 7, 3

linear, observed = jax.jit(losses.linear_cross_entropy), jax.jit(losses.frozen_losses)
corrected_loss = jax.jit(losses.corrected_cross_entropy)


def linear_with_entropy(hidden: Array, unembedding: Array, targets: Array) -> tuple[Array, Array]:
    """Return losses of the frozen pass."""
    found = observed(hidden, unembedding, losses.gradient_sketch(unembedding), targets)
    return found.nll, found.entropy


def slope(function: Callable[..., Array], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """Return the compiled gradient."""
    return jax.jit(jax.grad(function, argnums))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of eight vocabulary entries, so that tiny vocabularies have many."""
    monkeypatch.setattr(losses, "TILE_ELEMENTS", 8 * ROWS)
    monkeypatch.setattr(losses, "_MIN_BLOCK", 1)


def plain(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Return negative log-likelihood and entropy by their definitions."""
    log_probability = jax.nn.log_softmax(logits)
    real = targets < logits.shape[-1]
    chosen = jnp.take_along_axis(log_probability, jnp.where(real, targets, 0)[..., None], axis=-1)[..., 0]
    entropy = -(jnp.exp(log_probability) * log_probability).sum(-1)
    return jnp.where(real, -chosen, 0.0), jnp.where(real, entropy, 0.0)


def problem(vocab: int, scale: float = 1.0) -> tuple[Array, Array, Array, Array, Array]:
    """Draw hidden, unembedding, z, vocab_basis and targets, every fifth of which is padding."""
    keys = jax.random.split(jax.random.key(vocab), 5)
    hidden = scale * jax.random.normal(keys[0], (ROWS, WIDTH))
    unembedding = jax.random.normal(keys[1], (vocab, WIDTH))
    z, basis = jax.random.normal(keys[2], (ROWS, RANK)), jax.random.normal(keys[3], (vocab, RANK))
    targets = jax.random.randint(keys[4], (ROWS,), 0, vocab)
    return hidden, unembedding, z, basis, targets.at[::5].set(vocab)


@pytest.mark.parametrize("vocab", [1, 5, 8, 64, 67])
def test_loss_entropy_and_gradient_equal_the_plain_formula(vocab: int) -> None:
    hidden, unembedding, _, _, targets = problem(vocab)
    weight = jnp.linspace(0.5, 2.0, ROWS)

    def of(loss: Callable[[Array], Array]) -> tuple[Array, Array]:
        return jax.jit(jax.value_and_grad(lambda h: (weight * loss(h)).sum()))(hidden)

    value, gradient = of(lambda h: linear(h, unembedding, targets))
    expected, wanted = of(lambda h: plain(h @ unembedding.T, targets)[0])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted, atol=1e-5)
    both = linear_with_entropy(hidden, unembedding, targets)
    for found, right in zip(both, plain(hidden @ unembedding.T, targets), strict=True):
        np.testing.assert_allclose(found, right, atol=1e-5)


@pytest.mark.parametrize("vocab", [5, 64, 67])
def test_the_corrected_loss_equals_the_plain_formula_and_the_full_projection(vocab: int) -> None:
    hidden, unembedding, z, _, targets = problem(vocab)
    down = jax.random.normal(jax.random.key(9), (WIDTH, RANK))
    frozen = losses.frozen_logits(hidden, unembedding)
    weight = jnp.linspace(0.5, 2.0, ROWS)

    def corrected(z: Array, basis: Array) -> Array:
        return (weight * corrected_loss(frozen, z, basis, targets)).sum()

    def expected(z: Array, basis: Array) -> Array:
        return (weight * plain(frozen + z @ basis.T, targets)[0]).sum()

    basis = unembedding @ down
    value, gradient = jax.jit(jax.value_and_grad(corrected, argnums=(0, 1)))(z, basis)
    wanted, slopes = jax.jit(jax.value_and_grad(expected, argnums=(0, 1)))(z, basis)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    for found, right in zip(gradient, slopes, strict=True):
        np.testing.assert_allclose(found, right, atol=2e-5)
    moved = linear(hidden + z @ down.T, unembedding, targets)
    np.testing.assert_allclose(corrected_loss(frozen, z, basis, targets), moved, atol=1e-4)


def test_the_corrected_loss_can_be_differentiated_through_a_gradient_step() -> None:
    hidden, unembedding, z, basis, targets = problem(67)
    frozen = losses.frozen_logits(hidden, unembedding)

    def after_a_step(loss: Callable[..., Array], z: Array, basis: Array) -> Array:
        slope_z, slope_basis = slope(loss, argnums=(0, 1))(z, basis)
        return loss(z - 0.3 * slope_z, basis - 0.3 * slope_basis)

    found = slope(
        lambda *a: after_a_step(lambda z, b: corrected_loss(frozen, z, b, targets).mean(), *a),
        argnums=(0, 1),
    )(z, basis)
    expected = slope(
        lambda *a: after_a_step(lambda z, b: plain(frozen + z @ b.T, targets)[0].mean(), *a), argnums=(0, 1)
    )(z, basis)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_two_tokens_worked_by_hand() -> None:
    # Hidden state 1, unembedding rows log 3 and 0: probabilities 3/4 and 1/4. The sketch of a row is any S numbers.
    hidden, unembedding = jnp.ones((1, 3, 1)), jnp.asarray([[np.log(3.0)], [0.0]])
    sketch, targets = jnp.asarray([[4.0, 0.0], [8.0, 20.0]]), jnp.asarray([[0, 1, 2]])
    found = observed(hidden, unembedding, sketch, targets)
    entropy = 0.75 * np.log(4 / 3) + 0.25 * np.log(4)
    np.testing.assert_allclose(found.nll, [[np.log(4 / 3), np.log(4), 0]], rtol=1e-6)
    np.testing.assert_allclose(found.entropy, [[entropy, entropy, 0]], rtol=1e-6)
    np.testing.assert_allclose(found.confidence, [[0.75, 0.75, 0]], rtol=1e-6)
    # The expected row is (5, 5).
    np.testing.assert_allclose(found.gradient_sketch, [[[1, 5], [-3, -15], [0, 0]]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("vocab", [5, 64, 67])
def test_confidence_and_gradient_sketch_equal_softmax_and_the_projected_gradient(vocab: int) -> None:
    hidden, unembedding, _, _, targets = problem(vocab)
    # Omega itself: the sketch of the identity.
    projection = losses.gradient_sketch(jnp.eye(WIDTH))
    assert projection.shape == (WIDTH, losses.SKETCH_SIZE)
    sketch = losses.gradient_sketch(unembedding)
    np.testing.assert_allclose(sketch, unembedding @ projection, atol=1e-5)
    found = observed(hidden, unembedding, sketch, targets)
    real = np.asarray(targets) < vocab
    likely = np.asarray(jax.nn.softmax(hidden @ unembedding.T)).max(-1)
    np.testing.assert_allclose(found.confidence, np.where(real, likely, 0), atol=1e-6)
    gradient = slope(lambda h: plain(h @ unembedding.T, targets)[0].sum())(hidden)
    np.testing.assert_allclose(found.gradient_sketch, gradient @ projection, atol=2e-5)


def test_a_sketched_gradient_keeps_its_length_in_expectation() -> None:
    width = 400
    projection = np.asarray(losses.gradient_sketch(jnp.eye(width)))
    gradients = np.random.default_rng(0).normal(size=(200, width))
    ratio = np.square(gradients @ projection).sum(-1) / np.square(gradients).sum(-1)
    # The squared length of one sketch has mean 1 and variance 2 / S; all share one projection of width 400.
    assert abs(ratio.mean() - 1) < 0.1
    assert 0.5 * 2 / losses.SKETCH_SIZE < ratio.var() < 2 * 2 / losses.SKETCH_SIZE


def test_padding_has_exactly_zero_loss_entropy_and_gradient() -> None:
    hidden, unembedding, z, basis, targets = problem(67)
    pads = np.asarray(targets) == 67
    frozen = losses.frozen_logits(hidden, unembedding)
    frozen_pass = observed(hidden, unembedding, unembedding[:, :3], targets)
    gradient = slope(lambda h: linear(h, unembedding, targets).sum())(hidden)
    slope_z = slope(lambda z: corrected_loss(frozen, z, basis, targets).sum())(z)
    for values in (*frozen_pass, gradient, slope_z):
        assert np.all(np.asarray(values)[pads] == 0) and np.all(np.asarray(values)[~pads] != 0)
    every = jnp.full_like(targets, 67)
    to_basis = slope(lambda b: corrected_loss(frozen, z, b, every).sum())(basis)
    assert np.all(np.asarray(to_basis) == 0)


def test_the_frozen_side_gets_no_gradient() -> None:
    hidden, unembedding, z, basis, targets = problem(20)
    frozen = losses.frozen_logits(hidden, unembedding)
    for_observing = slope(lambda h: sum(part.sum() for part in observed(h, unembedding, basis, targets)))(
        hidden
    )
    assert np.all(np.asarray(for_observing) == 0)
    to_unembedding = slope(lambda e: linear(hidden, e, targets).sum())(unembedding)
    to_logits = slope(lambda f: corrected_loss(f, z, basis, targets).sum())(frozen)
    assert np.all(np.asarray(to_unembedding) == 0) and np.all(np.asarray(to_logits) == 0)


def test_huge_logits_stay_finite_and_exact() -> None:
    hidden, unembedding, _, _, targets = problem(67, scale=3e3)
    nll, entropy = linear_with_entropy(hidden, unembedding, targets)
    wide = np.asarray(hidden, np.float64) @ np.asarray(unembedding, np.float64).T
    top = wide.max(-1)
    total = top + np.log(np.exp(wide - top[:, None]).sum(-1))
    expected = total - wide[np.arange(ROWS), np.minimum(targets, 66)]
    np.testing.assert_allclose(nll, np.where(targets < 67, expected, 0), rtol=1e-4, atol=1e-2)
    assert np.all(np.isfinite(entropy)) and np.all(np.asarray(entropy) >= -1e-4)


def test_batches_and_vmap_equal_one_stream_at_a_time() -> None:
    hidden, unembedding, z, basis, targets = problem(67)
    frozen = losses.frozen_logits(hidden, unembedding)
    one = linear(hidden, unembedding, targets)
    low = corrected_loss(frozen, z, basis, targets)

    def pair(array: Array) -> Array:
        return jnp.stack([array, array[::-1]])

    batched = linear(pair(hidden), unembedding, pair(targets))
    np.testing.assert_allclose(batched, pair(one), atol=1e-5)
    batched = observed(pair(hidden), unembedding, basis, pair(targets))
    for found, right in zip(batched, observed(hidden, unembedding, basis, targets), strict=True):
        np.testing.assert_allclose(found, pair(right), atol=1e-5)
    batched = corrected_loss(pair(frozen), pair(z), basis, pair(targets))
    np.testing.assert_allclose(batched, pair(low), atol=1e-5)
    mapped = jax.vmap(corrected_loss, in_axes=(0, 0, 0, 0))(
        pair(frozen), pair(z), jnp.stack([basis, basis]), pair(targets)
    )
    np.testing.assert_allclose(mapped, pair(low), atol=1e-5)


def test_memory_stays_far_below_one_array_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    length, width, vocab = 512, 16, 100_003
    shapes = (
        jax.ShapeDtypeStruct((length, width), jnp.float32),
        jax.ShapeDtypeStruct((vocab, width), jnp.float32),
        jax.ShapeDtypeStruct((length,), jnp.int32),
    )

    def loss(hidden: Array, unembedding: Array, targets: Array) -> Array:
        return linear(hidden, unembedding, targets).mean()

    compiled = jax.jit(jax.value_and_grad(loss)).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.15 * (4 * length * vocab)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-30, 30, width=32), min_size=21, max_size=21))
def test_entropy_lies_between_zero_and_the_logarithm_of_the_vocabulary(logits: list[float]) -> None:
    unembedding = jnp.asarray(logits, jnp.float32)[:, None]
    nll, entropy = linear_with_entropy(jnp.ones((1, 1)), unembedding, jnp.zeros(1, jnp.int32))
    assert -1e-4 <= float(entropy[0]) <= np.log(len(logits)) + 1e-4
    assert float(nll[0]) >= -1e-4
