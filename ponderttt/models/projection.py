"""Products of rows with a matrix that is stored as [out, in]."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ponderttt.models import sharding
from ponderttt.models.quantised import is_exact, opened, row_block

#: Most rows of a decoding batch; more are a text that is read.
FEW = 32
#: Bytes of the rows of a narrower matrix that are open at once: the cache of a core.
OPEN_BYTES = 1 << 20


def project(rows: Float[Array, "T D"], matrix: Float[Array, "F D"]) -> Float[Array, "T F"]:
    """Return rows · matrixᵀ.

    Few rows are multiplied as (matrix · rowsᵀ)ᵀ: a CPU packs the right-hand side of every product, which takes longer
    than the product of few rows.
    """
    if 1 < len(rows) <= FEW:
        # Without the barrier the compiler swaps the two factors back.
        return lax.optimization_barrier(lax.dot_general(matrix, rows, (((1,), (1,)), ((), ())))).T
    return jnp.einsum("TD,FD->TF", rows, matrix)


def project_kept(rows: Float[Array, "T D"], matrix: Any) -> Float[Array, "T F"]:
    """Return :func:`project` in float32 for a stored matrix: one that is not float32 is opened some rows at a time.

    On a mesh each device opens its own part.
    """
    if sharding.in_use() or is_exact(matrix):
        return project(rows, opened(matrix).astype(jnp.float32))
    count, width = matrix.shape
    size = min(max(1, OPEN_BYTES // (4 * width)), count)

    def block(index: Array, found: Array) -> Array:
        # The last block starts early enough to be complete.
        start = jnp.minimum(index * size, count - size)
        part = project(rows, row_block(matrix, start, size).astype(jnp.float32))
        return lax.dynamic_update_slice(found, part, (0, start))

    return lax.fori_loop(0, -(-count // size), block, jnp.zeros((len(rows), count), jnp.float32))
