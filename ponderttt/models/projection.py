"""Products with stored values, and of rows with a matrix that is stored as [out, in].

The dtype in which a model stores a matrix, or keys and values, is that in which its products read both of their inputs. They
accumulate and return float32: units for bfloat16 do so, and are slower if the result is bfloat16 too. Everything between
two products is float32.
"""

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


def product(equation: str, inputs: Array, stored: Array) -> Array:
    """Return the einsum of ``inputs``, rounded to the dtype of ``stored``, with ``stored``; float32."""
    rounded = inputs.astype(stored.dtype)
    return jnp.einsum(equation, rounded, stored, preferred_element_type=jnp.float32)


def project(rows: Float[Array, "T D"], matrix: Float[Array, "F D"]) -> Float[Array, "T F"]:
    """Return rows · matrixᵀ, a :func:`product`.

    Few rows are multiplied as (matrix · rowsᵀ)ᵀ: a CPU packs the right-hand side of every product, which takes longer
    than the product of few rows. One row is multiplied with a narrower matrix element by element: as a product, a CPU
    would first convert the whole matrix to float32.
    """
    if len(rows) == 1 and matrix.dtype != jnp.float32:
        rounded = rows.astype(matrix.dtype).astype(jnp.float32)
        return (matrix.astype(jnp.float32) * rounded).sum(axis=-1)[None]
    if 1 < len(rows) <= FEW:
        # Without the barrier the compiler swaps the two factors back.
        turned = lax.dot_general(
            matrix, rows.astype(matrix.dtype), (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        return lax.optimization_barrier(turned).T
    return product("TD,FD->TF", rows, matrix)


def project_kept(rows: Float[Array, "T D"], matrix: Any) -> Float[Array, "T F"]:
    """Return :func:`project` for a stored matrix: one that is not float32 is opened some rows at a time.

    On a mesh each device opens its own part.
    """
    if sharding.in_use() or is_exact(matrix):
        return project(rows, opened(matrix))
    count, width = matrix.shape
    size = min(max(1, OPEN_BYTES // (4 * width)), count)

    def block(index: Array, found: Array) -> Array:
        # The last block starts early enough to be complete.
        start = jnp.minimum(index * size, count - size)
        # Opened before it is multiplied: together with a product of one row that takes five times as long.
        part = project(rows, lax.optimization_barrier(row_block(matrix, start, size)))
        return lax.dynamic_update_slice(found, part, (0, start))

    return lax.fori_loop(0, -(-count // size), block, jnp.zeros((len(rows), count), jnp.float32))
