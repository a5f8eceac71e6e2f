"""Rows times a matrix that is kept as [out, in]."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ponderttt.models import sharding
from ponderttt.models.quantised import is_exact, opened, row_block

#: So many rows are a batch that decodes, not a text that is read.
FEW = 32
#: Of the rows of a narrower matrix that are open at once: what a core's cache holds.
OPEN_BYTES = 1 << 20


def project(rows: Float[Array, "T D"], matrix: Float[Array, "F D"]) -> Float[Array, "T F"]:
    """rows · matrixᵀ.

    A few rows are multiplied from the other side: a CPU packs the right-hand side of a product anew each time, which for a
    few rows takes longer than the product.
    """
    if 1 < len(rows) <= FEW:
        # Without the barrier the compiler undoes it: a transposed product is the product of the two the other way round.
        return lax.optimization_barrier(lax.dot_general(matrix, rows, (((1,), (1,)), ((), ())))).T
    return jnp.einsum("TD,FD->TF", rows, matrix)


def project_kept(rows: Float[Array, "T D"], matrix: Any) -> Float[Array, "T F"]:
    """:func:`project`, float32, onto a matrix as it is kept: one that is not float32 is opened some rows at a time.

    The devices of a mesh have a part of it each, and open that.
    """
    if sharding.in_use() or is_exact(matrix):
        return project(rows, opened(matrix).astype(jnp.float32))
    count, width = matrix.shape
    size = min(max(1, OPEN_BYTES // (4 * width)), count)

    def block(index: Array, found: Array) -> Array:
        # The last block begins early enough to be whole.
        start = jnp.minimum(index * size, count - size)
        part = project(rows, row_block(matrix, start, size).astype(jnp.float32))
        return lax.dynamic_update_slice(found, part, (0, start))

    return lax.fori_loop(0, -(-count // size), block, jnp.zeros((len(rows), count), jnp.float32))
