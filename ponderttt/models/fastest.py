"""The dtype that this machine multiplies matrices in fastest, for ``dtype: auto``.

Units for bfloat16 (AMX, AVX-512 BF16, tensor cores) are several times as fast as float32.  Without one, a CPU converts every
bfloat16 input first, so bfloat16 is slower.  One product with a matrix of the model tells the two apart.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ponderttt.costs import Program
from ponderttt.models.families.family import Shape
from ponderttt.models.projection import product
from ponderttt.models.quantised import Dtype

#: Rows of the product: eight chunks of the default size, so that starting a program does not count.
ROWS = 4096
#: Measurements of each dtype; the shortest counts.
ROUNDS = 3
#: bfloat16 must be faster by this factor: a model does not only multiply, and rounding costs accuracy.
WORTH = 1.25


def fastest_dtype(shape: Shape) -> Dtype:
    """Measure the first product of an MLP, ``[4096, D] · [F, D]ᵀ``, in both dtypes and return the faster one."""
    return faster(product_seconds(shape, "float32"), product_seconds(shape, "bfloat16"))


def faster(float32: float, bfloat16: float) -> Dtype:
    """Return bfloat16 if it is faster by the factor ``WORTH``, given the seconds of both."""
    return "bfloat16" if WORTH * bfloat16 <= float32 else "float32"


def product_seconds(shape: Shape, dtype: Dtype) -> float:
    """Return the shortest time of the product with matrices that are stored in ``dtype``."""
    rows, matrix = jax.random.key(0), jax.random.key(1)
    inputs = jax.random.normal(rows, (ROWS, shape.width))
    stored = jax.random.normal(matrix, (shape.mlp_width, shape.width)).astype(jnp.dtype(dtype))
    program = Program(lambda inputs, stored: product("TD,FD->TF", inputs, stored))
    return min(program(inputs, stored).seconds for _ in range(ROUNDS))
