"""Assemble one parameter from the tensors of a file, with one tensor in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from ponderttt.models.quantised import Precision, quantised
from ponderttt.models.sharding import placed

#: Bytes of the values that are quantised at once.
_QUANTISED_BYTES = 1 << 24


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is read on demand.

    Attributes:
        name: name in the file.
        shape: shape in the file.
        read: function that returns the values as float32.
        place: file and byte offset of plain float32 values, which can be mapped into memory; None otherwise.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    place: tuple[Path, int] | None = None


def parameter(
    name: str,
    parts: Sequence[LazyTensor],
    shape: tuple[int, ...],
    precision: Precision,
    mesh: Mesh | None,
    *,
    stacked: bool,
    turned: bool = False,
) -> Any:
    """Return a parameter as the model stores it, on its devices.

    Args:
        name: name of the parameter.
        parts: the tensors whose rows, one after the other, are its rows.
        shape: shape of the parameter.
        precision: how it is stored.
        mesh: devices that share it; one device by default.
        stacked: True if blocks are stacked along its first axis.
        turned: True if the file holds the tensors as [in, out].
    """
    if parts and precision.quantises(name, len(shape) - stacked):
        tensors = (_rows(part, turned) for part in parts)
        if mesh is None:
            return _quantised(tensors, shape, precision)
        return placed(name, _quantised_on_host(tensors, shape, precision), mesh, stacked=stacked)
    # On a CPU, JAX takes over memory to which there is no other reference, without a copy.
    return placed(name, _joined(parts, shape, precision.dtype, turned), mesh, stacked=stacked)


def _rows(part: LazyTensor, turned: bool) -> np.ndarray:
    values = part.read()
    return values.T if turned else values


def _joined(
    parts: Sequence[LazyTensor], shape: tuple[int, ...], dtype: str, turned: bool = False
) -> np.ndarray:
    """Join tensors to one array of ``shape``: mapped if they are adjacent in a file, or else copied."""
    if not parts:
        return np.zeros(shape, jnp.dtype(dtype))
    places = [part.place for part in parts]
    ends = [
        place and (place[0], place[1] + 4 * math.prod(part.shape))
        for place, part in zip(places, parts, strict=True)
    ]
    if dtype == "float32" and not turned and places[0] and places[1:] == ends[:-1]:
        return np.asarray(np.memmap(places[0][0], np.float32, "r", places[0][1], shape))
    joined = _empty(shape, dtype)
    rows, row = joined.reshape(-1, *_rows_shape(parts[0], turned)), 0
    for part in parts:
        values = _rows(part, turned)
        rows[row : row + len(values)] = values
        row += len(values)
    return joined


def _rows_shape(part: LazyTensor, turned: bool) -> tuple[int, ...]:
    return (part.shape[::-1] if turned else part.shape)[1:]


def _empty(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return uninitialised memory on a 64-byte boundary, which JAX takes over on a CPU without a copy."""
    kind = jnp.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(kind).reshape(shape)


def _pieces(tensors: Iterable[np.ndarray], precision: Precision) -> Iterator[tuple[int, Any]]:
    """Quantise tensors some rows at a time; yield the number of the first row, and the rows.

    Every row has scales of its own, so the result does not depend on where tensors are cut.
    """
    row = 0
    for values in tensors:
        step = max(1, _QUANTISED_BYTES // values[:1].nbytes)
        for first in range(0, len(values), step):
            rows = values[first : first + step]
            yield row, quantised(rows, precision)
            row += len(rows)


def _quantised(tensors: Iterable[np.ndarray], shape: tuple[int, ...], precision: Precision) -> Any:
    """Assemble a parameter on one device, in place."""
    whole: Any = None
    for row, piece in _pieces(tensors, precision):
        if whole is None:
            whole = jax.tree.map(lambda leaf: jnp.zeros((*shape[:-1], leaf.shape[-1]), leaf.dtype), piece)
        # In a stack, a row has the index of its block and its index there.
        whole = _put(whole, piece, divmod(row, shape[1]) if len(shape) > 2 else (row,))
    return whole


def _quantised_on_host(tensors: Iterable[np.ndarray], shape: tuple[int, ...], precision: Precision) -> Any:
    """Assemble a parameter for many devices on the host: writing rows in place would gather it on every device."""
    whole: Any = None
    for row, piece in _pieces(tensors, precision):
        if whole is None:
            whole = jax.tree.map(lambda leaf: np.empty((*shape[:-1], leaf.shape[-1]), leaf.dtype), piece)
        for all_rows, rows in zip(jax.tree.leaves(whole), jax.tree.leaves(piece), strict=True):
            all_rows.reshape(-1, rows.shape[-1])[row : row + len(rows)] = rows
    return whole


@partial(jax.jit, donate_argnums=0)
def _put(whole: Any, piece: Any, start: tuple[Any, ...]) -> Any:
    def put(leaf: jax.Array, rows: jax.Array) -> jax.Array:
        update = rows.reshape((1,) * (leaf.ndim - rows.ndim) + rows.shape)
        return lax.dynamic_update_slice(leaf, update, (*start, 0))

    return jax.tree.map(put, whole, piece)
