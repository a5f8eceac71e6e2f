"""In bfloat16, matrix products read bfloat16 and return float32, and everything between them is float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core as jex_core

from ponderttt.decoding.cache import prefill, step, unstack
from ponderttt.models import losses
from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.projection import project
from ponderttt.models.quantised import Precision
from ponderttt.models.streaming import Ring, empty_past, prefix_after, suffix_after

NARROW = Precision("bfloat16")
CHUNK = 8
RING = Ring(CHUNK, slots=2, sinks=1, front=0)


@pytest.fixture(scope="module")
def narrow(tiny: Backbone) -> Backbone:
    return random_backbone(tiny.config, jax.random.key(0), precision=NARROW)


def equations(jaxpr: Any) -> Iterator[Any]:
    """Yield all equations of a program, those of loops and branches too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jex_core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def check_products(program: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Check the dtypes of all products between a stored value and another one; return the results' dtypes."""
    closed = jax.make_jaxpr(program)(*arguments)
    products = [found for found in equations(closed.jaxpr) if found.primitive.name == "dot_general"]
    assert products
    for found in products:
        assert [value.aval.dtype for value in found.invars] == [jnp.bfloat16] * 2, found
        assert found.outvars[0].aval.dtype == jnp.float32, found
    return [value.dtype for value in jax.tree.leaves(closed.out_avals)]


def test_the_frozen_pass_multiplies_bfloat16_and_adds_float32(narrow: Backbone) -> None:
    tokens = jnp.arange(CHUNK)[None]

    def prefix(params: Any) -> Any:
        return nnx.merge(narrow.graph, params).prefix(tokens)

    def suffix(params: Any, split: Any) -> Any:
        return nnx.merge(narrow.graph, params).suffix(split, tokens < narrow.config.vocab_size)

    assert check_products(prefix, narrow.params) == [jnp.float32]
    assert check_products(suffix, narrow.params, narrow.prefix(tokens)) == [jnp.float32]
    assert check_products(nnx.merge(narrow.graph, narrow.params).unembed, narrow.hidden(tokens)) == [
        jnp.float32
    ]


def test_a_chunk_after_a_cache_is_read_likewise_and_cached_in_bfloat16(narrow: Backbone) -> None:
    shape, split = narrow.config, narrow.split_layer
    real = jnp.ones(CHUNK, bool)

    def read(params: Any, before: Any, after: Any) -> Any:
        model = nnx.merge(narrow.graph, params)
        found, fresh = prefix_after(model, jnp.arange(CHUNK), before, 1, RING)
        hidden, _, last = suffix_after(model, found, real, after, 1, RING)
        return (found, hidden), (fresh, last)

    before, after = (empty_past(shape, RING, n, jnp.bfloat16) for n in (split, shape.layers - split))
    found = check_products(read, narrow.params, before, after)
    assert found == [jnp.float32] * 2 + [jnp.bfloat16] * 4


def test_decoding_does_likewise(narrow: Backbone) -> None:
    weights = unstack(nnx.merge(narrow.graph, narrow.params))
    tokens = jnp.arange(2 * CHUNK).reshape(2, CHUNK)
    read, cache = prefill(narrow.config, weights, tokens, 2 * CHUNK)
    assert {array.dtype for array in cache.keys + cache.values} == {jnp.dtype(jnp.bfloat16)}
    assert read.hidden.dtype == jnp.float32
    check_products(lambda given, ids: prefill(narrow.config, given, ids, 2 * CHUNK), weights, tokens)
    own_keys = check_products(partial(step, narrow.config), weights, tokens[:, 0], cache)
    assert own_keys == [jnp.float32] + [jnp.bfloat16] * 2 * narrow.config.layers


@pytest.mark.parametrize("rows", [1, 4, 40])
def test_a_projection_rounds_its_inputs_and_adds_in_float32(rows: int) -> None:
    draw = np.random.default_rng(0)
    hidden = jnp.asarray(draw.standard_normal((rows, 256), np.float32))
    matrix = jnp.asarray(draw.standard_normal((96, 256), np.float32)).astype(jnp.bfloat16)
    found = jax.jit(project)(hidden, matrix)
    assert found.dtype == jnp.float32
    rounded = np.asarray(hidden.astype(jnp.bfloat16), np.float64)
    np.testing.assert_allclose(found, rounded @ np.asarray(matrix, np.float64).T, rtol=1e-5, atol=1e-4)


def test_losses_are_those_of_the_rounded_logits(narrow: Backbone) -> None:
    """The target's logit is rounded like all others, so a loss is never negative."""
    tokens = jnp.arange(CHUNK)[None]
    hidden, matrix = 30 * narrow.hidden(tokens), narrow.stored_unembedding
    logits = narrow.unembed(hidden)
    targets = logits.argmax(-1)
    wanted = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
    found = losses.linear_cross_entropy(hidden, matrix, targets)
    observed = losses.frozen_losses(hidden, matrix, losses.gradient_sketch(matrix), targets)
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    np.testing.assert_allclose(observed.nll, wanted, atol=2e-5)
    np.testing.assert_allclose(losses.frozen_logits(hidden, matrix), logits, atol=1e-4)


def test_gradients_through_narrow_blocks_follow_those_in_float32(tiny: Backbone, narrow: Backbone) -> None:
    tokens = jnp.arange(CHUNK)[None]
    split, real = tiny.prefix(tokens), jnp.ones((1, CHUNK), bool)

    def slope(backbone: Backbone) -> Any:
        def loss(split: Any) -> Any:
            hidden = nnx.merge(backbone.graph, backbone.params).suffix(split, real)
            return losses.linear_cross_entropy(hidden, backbone.stored_unembedding, tokens).mean()

        return jax.jit(jax.grad(loss))(split)

    whole, found = slope(tiny), slope(narrow)
    assert found.dtype == jnp.float32
    assert jnp.linalg.norm(found - whole) < 0.05 * jnp.linalg.norm(whole)
