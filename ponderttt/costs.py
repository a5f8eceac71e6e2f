"""Measured costs: FLOPs counted from the traced program, and seconds of its execution.

XLA's cost analysis counts the body of a loop once, whatever its trip count.  So FLOPs are counted on the jaxpr, where
``scan`` has its length; for programs without loops both agree (tested).  A ``cond`` counts its most expensive branch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jex_core
from jax.interpreters import partial_eval

#: Primitives that move or re-label data, and compute nothing.
_FREE = frozenset(
    name.strip()
    for name in """
    bitcast_convert_type, broadcast_in_dim, concatenate, convert_element_type, copy, copy_p, device_put,
    dynamic_slice, dynamic_update_slice, expand_dims, gather, iota, optimization_barrier, pad, random_unwrap,
    random_wrap, reshape, rev, scatter, select_n, slice, split, squeeze, stop_gradient, transpose
    """.split(",")
)
_REDUCTIONS = frozenset(
    (
        "reduce_sum",
        "reduce_max",
        "reduce_min",
        "reduce_and",
        "reduce_or",
        "reduce_prod",
        "argmax",
        "argmin",
        "cumsum",
        "sort",
        "top_k",
    )
)
#: Primitives whose FLOPs do not follow from shapes, or that no program here uses: an error instead of a guess.
_UNCOUNTED = {
    "while": "a while loop has no static trip count; use lax.scan",
    "conv_general_dilated": "convolutions are not counted; write it as products and sums",
    "ragged_dot_general": "its group sizes are data",
    "pallas_call": "the grid of a kernel is not counted",
    "ffi_call": "foreign code cannot be counted",
}


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _equation_flops(equation: Any) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * _size(equation.outvars[0]) * math.prod(left[axis] for axis in contracted)
    if name in _UNCOUNTED:
        raise ValueError(f"the FLOPs of {name} cannot be counted: {_UNCOUNTED[name]}")
    inner = list(jex_core.jaxprs_in_params(equation.params)) if equation.params else []
    if name == "cond":
        return max(_jaxpr_flops(branch) for branch in inner)
    if name in ("scatter-add", "scatter_add"):
        return _size(equation.invars[2])
    if inner and name not in _REDUCTIONS:
        trips = equation.params["length"] if name == "scan" else 1
        # custom_vjp carries its forward rule as a function, not as a jaxpr, so nothing counts twice.
        return trips * sum(_jaxpr_flops(jaxpr) for jaxpr in inner)
    if name in _FREE:
        return 0
    if name in _REDUCTIONS:
        return _size(equation.invars[0])
    return max((_size(variable) for variable in equation.outvars), default=0)


def _jaxpr_flops(jaxpr: Any) -> int:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def count_flops(function: Callable[..., Any], *args: Any) -> int:
    """Count the FLOPs of ``function(*args)``: 2·M·N·K for a matrix product, 1 for each element computed otherwise.

    Args:
        function: a traceable function.
        args: arrays, or ``jax.ShapeDtypeStruct`` instead.

    Raises:
        ValueError: the program has a loop without a static trip count, or another part that cannot be counted.
    """
    return _needed_flops(jax.make_jaxpr(function)(*args).jaxpr)


def _needed_flops(traced: Any) -> int:
    # Results that no output needs, such as the value of a loss if only its gradient is used, are traced but not run.
    needed, _ = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))
    return _jaxpr_flops(needed)


class Cost(NamedTuple):
    """Counted FLOPs and wall-clock seconds."""

    flops: float
    seconds: float

    def plus(self, other: Cost, share: float = 1.0) -> Cost:
        """Return the cost with a share of another one on top; a negative share takes it off."""
        return Cost(self.flops + share * other.flops, self.seconds + share * other.seconds)


class Measured(NamedTuple):
    """A result with its counted FLOPs and wall-clock seconds."""

    value: Any
    flops: float
    seconds: float

    @property
    def cost(self) -> Cost:
        """The cost alone."""
        return Cost(self.flops, self.seconds)


class Program:
    """A function that is compiled once per set of shapes; the reported time does not include compilation.

    Args:
        function: a traceable function.
        rehearse: run it once after compilation, so that no measured run has to map memory.
    """

    def __init__(self, function: Callable[..., Any], *, rehearse: bool = True) -> None:
        self.function = function
        self._rehearse = rehearse
        self._jitted = jax.jit(function)
        #: By the shapes of the arguments.
        self._flops: dict[Any, float] = {}
        self._compiled: set[Any] = set()

    def flops(self, *args: Any) -> float:
        """Count the FLOPs of a call with such arguments, or their shapes, without running it."""
        return float(count_flops(self.function, *args))

    def __call__(self, *args: Any) -> Measured:
        """Run to completion, count FLOPs, and measure the seconds of the execution alone."""
        value, seconds = self.timed(*args)
        key = _signature(args)
        if key not in self._flops:
            # The trace of the compiled program.
            self._flops[key] = float(_needed_flops(self._jitted.trace(*args).jaxpr.jaxpr))
        return Measured(value, self._flops[key], seconds)

    def timed(self, *args: Any) -> tuple[Any, float]:
        """Return the result and the seconds of the execution alone, without counting FLOPs."""
        key = _signature(args)
        if key not in self._compiled:
            self._jitted.lower(*args).compile()
            self._compiled.add(key)
            if self._rehearse:
                jax.block_until_ready(self._jitted(*args))
        begin = time.perf_counter()
        value = jax.block_until_ready(self._jitted(*args))
        return value, time.perf_counter() - begin


def _signature(args: tuple[Any, ...]) -> Any:
    leaves, structure = jax.tree.flatten(args)
    return structure, tuple((jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves)
