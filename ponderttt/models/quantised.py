"""Weight-only quantisation of a frozen model, by ``qwix``: int8 with a scale for each row, int4 with one for each 32 inputs.

Matrices are kept quantised and opened where they are used, one block at a time; everything is computed in the dtype of the
scales.  Vectors and positions stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

Kind = Literal["int8", "int4"]
#: Inputs that share a scale.
GROUP = 32
#: What is looked up or multiplied, but too small to matter.
_KEPT = ("positions",)


def is_quantised(value: Any) -> bool:
    """Whether a parameter is kept quantised."""
    return hasattr(value, "qvalue")


def quantise(name: str, array: Array, kind: Kind, *, stacked: bool) -> Any:
    """A parameter as it is kept: a quantised matrix [out, in], or what it was.

    Args:
        name: of the parameter.
        array: its values, in the dtype that is computed in.
        kind: how.
        stacked: whether blocks are stacked along a leading axis.
    """
    import qwix

    if array.ndim - stacked < 2 or name in _KEPT:
        return array
    last = array.ndim - 1
    rows = tuple(range(last))
    if kind == "int8":
        return qwix.quantize(array, jnp.int8, channelwise_axes=rows)
    return qwix.quantize(
        array, jnp.int4, channelwise_axes=rows, tiled_axes={last: math.gcd(GROUP, array.shape[last])}
    )


@dataclass(frozen=True)
class Precision:
    """In what a model computes, and how its matrices are kept."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    kind: Kind | None = None

    @property
    def is_exact(self) -> bool:
        """Whether parameters are those of the file."""
        return self.dtype == "float32" and self.kind is None

    def kept(self, name: str, array: Any, *, stacked: bool) -> Any:
        """A parameter as the model keeps it."""
        if self.kind is None:
            return jnp.asarray(array, self.dtype)
        return quantise(name, jnp.asarray(array, self.dtype), self.kind, stacked=stacked)

    def used(self, name: str, array: Any, *, stacked: bool) -> Array:
        """The float32 values that the model really computes with."""
        if self.is_exact:
            return jnp.asarray(array)
        return opened(self.kept(name, array, stacked=stacked)).astype(jnp.float32)


EXACT = Precision()


def opened(value: Any) -> Array:
    """A parameter as an array of the dtype that is computed in."""
    if not is_quantised(value):
        return value
    import qwix

    array: Array = qwix.dequantize(value)
    return array


def opened_block(block: Mapping[str, Any]) -> dict[str, Array]:
    """The parameters of one block, all of them open."""
    return {name: opened(value) for name, value in block.items()}


def rows(matrix: Any, index: Any) -> Array:
    """Some rows of a matrix; no others are opened."""
    return opened(matrix[index])


def row_block(matrix: Any, start: Any, size: int) -> Array:
    """``size`` rows of a matrix from ``start`` on; no others are opened."""
    if size == matrix.shape[0]:
        return opened(matrix)
    cut = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), matrix)
    return opened(cut)
