"""A vocabulary projection that is stored narrower than float32 is read as the values that it opens to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ponderttt.fast_weights.base import Chunk, FastWeights, Readout
from ponderttt.fast_weights.build import build
from ponderttt.loop.programs import ModulePrograms, project
from ponderttt.models import losses
from ponderttt.models.quantised import Precision, by_rows, opened
from tiny_streams import TINY

#: A vocabulary of two blocks and a part of one.
VOCABULARY, WIDTH, LENGTH, BLOCK = 300, 64, 24, 128
PRECISIONS = [Precision("bfloat16"), Precision(kind="int8"), Precision(kind="int4")]
RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
HIDDEN = jnp.asarray(RANDOM.normal(size=(LENGTH, WIDTH)), jnp.float32)
CHUNK = Chunk(
    hidden=HIDDEN,
    targets=jnp.asarray(RANDOM.integers(0, VOCABULARY, LENGTH), jnp.int32),
    mask=jnp.ones(LENGTH, bool),
    entropy=jnp.asarray(RANDOM.uniform(0, 5, LENGTH), jnp.float32),
    nll_frozen=jnp.asarray(RANDOM.uniform(0, 5, LENGTH), jnp.float32),
)


@pytest.fixture(params=PRECISIONS, ids=["bfloat16", "int8", "int4"])
def both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, jax.Array]:
    """Return the matrix as it is stored, and the values that it opens to, in their dtype, with small blocks."""
    monkeypatch.setattr(losses, "TILE_ELEMENTS", 1)
    assert losses._MIN_BLOCK == BLOCK
    kept = by_rows(request.param.kept("embedding", MATRIX, stacked=False))
    values = opened(kept)
    assert not np.array_equal(values.astype(jnp.float32), MATRIX)
    return kept, values


def near(found: Any, expected: Any) -> None:
    """Compare up to rounding relative to the largest value."""

    def check(a: Any, b: Any) -> None:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * (1 + np.abs(np.asarray(b)).max()))

    jax.tree.map(check, found, expected)


def test_products_and_their_derivatives_are_those_of_the_opened_matrix(both: tuple[Any, jax.Array]) -> None:
    columns = 0.1 * jax.random.normal(jax.random.key(0), (WIDTH, 3))

    def squares(matrix: Any) -> Callable[[jax.Array], jax.Array]:
        return lambda columns: jnp.sum(jnp.sin(losses.vocabulary_product(matrix, columns)))

    def curved(matrix: Any) -> Callable[[jax.Array], jax.Array]:
        return lambda columns: jnp.sum(jnp.square(jax.grad(squares(matrix))(columns)))

    kept, values = both
    # Products of hidden states read them in the dtype of the matrix; those of fast weights do not round these.
    rounded, exact = HIDDEN.astype(values.dtype).astype(jnp.float32), values.astype(jnp.float32)
    near(jax.jit(losses.frozen_logits)(HIDDEN, kept), rounded @ exact.T)
    near(jax.jit(losses.vocabulary_product)(kept, columns), exact @ columns)
    near(jax.jit(jax.grad(squares(kept)))(columns), jax.grad(squares(exact))(columns))
    near(jax.jit(jax.grad(curved(kept)))(columns), jax.grad(curved(exact))(columns))

    def loss(matrix: Any) -> Callable[[jax.Array], jax.Array]:
        return lambda hidden: losses.linear_cross_entropy(hidden, matrix, CHUNK.targets).mean()

    near(jax.jit(jax.grad(loss(kept)))(HIDDEN), jax.grad(loss(values))(HIDDEN))


@pytest.mark.parametrize("precision", PRECISIONS, ids=["bfloat16", "int8", "int4"])
def test_one_column_does_not_open_the_matrix_as_a_whole(precision: Precision) -> None:
    """The next token of a text needs one position."""
    matrix = np.random.default_rng(0).standard_normal((20_001, 128), np.float32)
    kept = by_rows(precision.kept("embedding", matrix, stacked=False))
    hidden = jnp.ones((1, 128))
    program = jax.jit(losses.frozen_logits).lower(hidden, kept).compile()
    # int4 is unpacked as a whole, to a byte each.
    unpacked = matrix.size if precision.kind == "int4" else 0
    assert program.memory_analysis().temp_size_in_bytes - unpacked < matrix.nbytes / 2


def awake(kind: str) -> FastWeights:
    """A module whose read differs from the frozen model's before it has learned anything."""
    module = build(kind, WIDTH, TINY, 0)
    if name := {"ttt": "output", "lora": "up"}.get(kind):
        parameter = getattr(module, name)
        parameter[...] = 0.05 * jax.random.normal(jax.random.key(3), parameter[...].shape)
    return module


@pytest.mark.parametrize(
    ("kind", "both"),
    list(zip(("ttt", "lora", "memory"), PRECISIONS, strict=True)),
    indirect=["both"],
    ids=["ttt in bfloat16", "lora in int8", "memory in int4"],
)
def test_modules_score_learn_and_continue_as_with_the_opened_matrix(
    kind: str, both: tuple[Any, jax.Array]
) -> None:
    module = awake(kind)
    programs = ModulePrograms(module)
    fast = jax.tree.map(lambda leaf: leaf[None], module.reset())
    chunk = jax.tree.map(lambda leaf: leaf[None], CHUNK)
    found = []
    for matrix in both:
        logits = project(chunk, matrix).value if programs.reads == "logits" else None
        # A slow basis is computed once for a matrix.
        readout = ModulePrograms(module).readout(matrix, logits, None)
        after = programs.adapt[max(programs.adapt)](programs.slow, fast, chunk, readout).value
        loss = programs.score(programs.slow, after.fast, chunk, readout).value
        one = jax.tree.map(lambda leaf: leaf[0], after.fast)
        graph, slow = nnx.split(module)
        following = jax.jit(
            lambda slow, one, readout, graph=graph: nnx.merge(graph, slow).next_token(one, CHUNK, readout)
        )(slow, one, Readout(matrix))
        found.append((after, loss, following))
    near(*found)
