"""Rows times a matrix that is kept as [out, in]."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

#: So many rows are a batch that decodes, not a text that is read.
FEW = 32


def project(rows: Float[Array, "T D"], matrix: Float[Array, "F D"]) -> Float[Array, "T F"]:
    """rows · matrixᵀ.

    A few rows are multiplied from the other side: a CPU packs the right-hand side of a product anew each time, which for a
    few rows takes longer than the product.
    """
    if 1 < len(rows) <= FEW:
        # Without the barrier the compiler undoes it: a transposed product is the product of the two the other way round.
        return lax.optimization_barrier(lax.dot_general(matrix, rows, (((1,), (1,)), ((), ())))).T
    return jnp.einsum("TD,FD->TF", rows, matrix)
