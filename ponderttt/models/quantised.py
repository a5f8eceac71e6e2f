"""Weight-only quantisation of a frozen model, by ``qwix``: int8 with a scale for each row, int4 with one for each 32 inputs.

Matrices are stored quantised and opened where they are used, one block at a time; the scales' dtype is that of the
computation.  Vectors and positions are not quantised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ponderttt.models.sharding import host_memory

Kind = Literal["int8", "int4"]
Dtype = Literal["float32", "bfloat16"]
#: Bits of a value.
BITS: Mapping[Kind, int] = {"int8": 8, "int4": 4}
#: Inputs that share a scale.
GROUP = 32
#: Matrices that are too small to be worth quantising.
_KEPT = ("positions",)


def is_quantised(value: Any) -> bool:
    """True if a parameter is stored quantised."""
    return hasattr(value, "qvalue")


@dataclass(frozen=True)
class Precision:
    """The dtype that a model computes in, and how its matrices are stored."""

    dtype: Dtype = "float32"
    kind: Kind | None = None

    @property
    def is_exact(self) -> bool:
        """True if parameters are stored exactly as in the file."""
        return self.dtype == "float32" and self.kind is None

    def quantises(self, name: str, dimensions: int) -> bool:
        """True if a parameter with this number of axes in one block is stored quantised."""
        return self.kind is not None and dimensions >= 2 and name not in _KEPT

    def kept(self, name: str, array: Any, *, stacked: bool) -> Any:
        """Return a parameter as the model stores it: a quantised matrix [out, in], or an array of the dtype."""
        if self.quantises(name, array.ndim - stacked):
            return quantised(array, self)
        return jnp.asarray(array, self.dtype)

    def used(self, name: str, array: Any, *, stacked: bool) -> Array:
        """Return the float32 values that the model computes with."""
        if self.is_exact:
            return jnp.asarray(array)
        return opened(self.kept(name, array, stacked=stacked)).astype(jnp.float32)


EXACT = Precision()


@partial(jax.jit, static_argnums=1)
def quantised(matrix: Any, precision: Precision) -> Any:
    """Quantise matrices [..., out, in] in one program, which makes no other copy of them."""
    import qwix

    matrix = jnp.asarray(matrix, precision.dtype)
    last = matrix.ndim - 1
    rows = tuple(range(last))
    if precision.kind == "int8":
        return qwix.quantize(matrix, jnp.int8, channelwise_axes=rows)
    tiles = {last: math.gcd(GROUP, matrix.shape[last])}
    return qwix.quantize(matrix, jnp.int4, channelwise_axes=rows, tiled_axes=tiles)


def is_exact(value: Any) -> bool:
    """True if a parameter is stored as float32."""
    return not is_quantised(value) and value.dtype == jnp.float32


def by_rows(matrix: Any) -> Any:
    """Return a matrix for programs that take some rows at a time: on a CPU, bfloat16 as its bits, uint16.

    A CPU has no native bfloat16: a loop over rows would first convert all of them to float32.
    """
    if is_quantised(matrix) or matrix.dtype != jnp.bfloat16 or not host_memory(matrix):
        return matrix
    (device,) = matrix.sharding.device_set
    return jax.device_put(np.asarray(matrix).view(np.uint16), device)


def opened(value: Any) -> Array:
    """Return a parameter as an array of the dtype of the computation."""
    if not is_quantised(value):
        return jax.lax.bitcast_convert_type(value, jnp.bfloat16) if value.dtype == jnp.uint16 else value
    import qwix

    array: Array = qwix.dequantize(value)
    return array


def opened_block(block: Mapping[str, Any]) -> dict[str, Array]:
    """Open all parameters of one block."""
    return {name: opened(value) for name, value in block.items()}


def rows(matrix: Any, index: Any) -> Array:
    """Return some rows of a matrix; only these are opened."""
    return opened(matrix[index])


def row_block(matrix: Any, start: Any, size: int) -> Array:
    """Return ``size`` rows of a matrix from ``start`` on; only these are opened."""
    if size == matrix.shape[0]:
        return opened(matrix)
    cut = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), matrix)
    return opened(cut)
