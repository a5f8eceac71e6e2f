"""Spread parameters over many devices: logical axes, and the axis of the mesh for each.

A mesh has the axes ``data`` (streams), ``fsdp`` (streams, and rows of parameters that are gathered when they are used) and
``tensor`` (heads, the inside of MLPs, the vocabulary).  The program is that of a single device; the compiler adds the
communication (Xu et al. 2021, arXiv:2105.04663).  ``jax.set_mesh`` activates a mesh.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ponderttt.errors import PonderTTTError, unknown

AXES = ("data", "fsdp", "tensor")
#: Logical axis → axis of the mesh; other axes are replicated.
RULES: Mapping[str, str] = {"embed": "fsdp", "heads": "tensor", "mlp": "tensor", "vocab": "tensor"}
#: Axes of the mesh over which the streams of a batch are spread.
BATCH = ("data", "fsdp")
#: Logical axes of every parameter of one block, by name.
LOGICAL: Mapping[str, tuple[str | None, ...]] = {
    "embedding": ("vocab", "embed"),
    "unembedding": ("vocab", "embed"),
    "positions": (None, "embed"),
    "query_key_value": ("heads", "embed"),
    "query_key_value_bias": ("heads",),
    "attention_out": ("embed", "heads"),
    "gate_up": ("mlp", "embed"),
    "mlp_up": ("mlp", "embed"),
    "mlp_up_bias": ("mlp",),
    "mlp_down": ("embed", "mlp"),
}
#: Vectors of the width of the residual stream or of a head, too small to be split.
_WHOLE = re.compile(r".*norm(_bias)?|(attention_out|mlp_down)_bias")
_BLOCKS = ("blocks_before", "blocks_after")


def in_use() -> bool:
    """True while tracing for several devices, when loops must not run over an axis that they share."""
    return jax.sharding.get_abstract_mesh().size > 1


def logical_axes(name: str, dimensions: int, stacked: bool) -> tuple[str | None, ...]:
    """Return the logical axes of a parameter; those of blocks have a leading axis of layers.

    Raises:
        KeyError: the parameter is not in the table above.
    """
    own = dimensions - stacked
    axes = (None,) * own if _WHOLE.fullmatch(name) else LOGICAL[name]
    if len(axes) != own:
        raise KeyError(f"{name} has {own} axes, of which {len(axes)} are described")
    return ("layers", *axes) if stacked else axes


def partition(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Return the axis of the mesh for each axis; one that the mesh does not divide evenly stays whole."""
    names = [RULES.get(axis or "") for axis in axes]
    return PartitionSpec(
        *(
            name if name is not None and size % mesh.shape[name] == 0 else None
            for name, size in zip(names, shape, strict=True)
        )
    )


def parse_mesh(text: str) -> dict[str, int]:
    """Parse ``8`` (all on ``tensor``) or ``data=2,fsdp=2,tensor=2``.

    Raises:
        PonderTTTError: not a mesh; the message shows the form.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, equals, size = part.strip().rpartition("=")
        if not equals:
            name = "tensor" if text.strip() == part.strip() else ""
        if name not in AXES:
            raise PonderTTTError(
                f"mesh {text}: {unknown('axis', name, AXES)}; for example 8, or data=2,tensor=4"
            )
        if not size.isdecimal() or int(size) < 1:
            raise PonderTTTError(f"mesh {text}: '{size}' is not a number of devices; for example 8")
        if name in sizes:
            raise PonderTTTError(f"mesh {text}: {name} is named twice; for example data=2,tensor=4")
        sizes[name] = int(size)
    return dict.fromkeys(AXES, 1) | sizes


def make_mesh(sizes: Mapping[str, int]) -> Mesh:
    """Return a mesh of the available devices.

    Raises:
        PonderTTTError: there are too few devices.
    """
    wanted, found = math.prod(sizes.values()), jax.device_count()
    if wanted > found:
        raise PonderTTTError(
            f"a mesh of {wanted} devices ({_told(sizes)}) on {found}; use a smaller one, or more devices"
        )
    shape = tuple(sizes[axis] for axis in AXES)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=jax.devices()[:wanted])


def _told(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in sizes.items())


def parameter_shardings(params: Any, mesh: Mesh) -> Any:
    """Return a sharding for every leaf of a decoder's parameters (arrays, or their shapes)."""

    def of(path: Any, leaf: Any) -> NamedSharding:
        names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
        stacked = any(name in _BLOCKS for name in names)
        name = names[names.index(next(n for n in names if n in (*_BLOCKS, "outer"))) + 1]
        # The scales of a quantised matrix follow its rows; a row has few of them.
        return NamedSharding(mesh, partition(logical_axes(name, leaf.ndim, stacked), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(of, params)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of [B, …] arrays: split by stream only."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def sharding_of(
    name: str, shape: tuple[int, ...], mesh: Mesh | None, *, stacked: bool
) -> NamedSharding | None:
    """Return the sharding of one parameter, as in :func:`parameter_shardings`; ``None`` without a mesh."""
    if mesh is None:
        return None
    return NamedSharding(mesh, partition(logical_axes(name, len(shape), stacked), shape, mesh))


def placed(name: str, value: Any, mesh: Mesh | None, *, stacked: bool) -> Any:
    """Put a parameter of the host on its devices (:func:`sharding_of`); each receives only its own part."""

    def put(leaf: np.ndarray) -> jax.Array:
        sharding = sharding_of(name, leaf.shape, mesh, stacked=stacked)
        if sharding is None:
            return jax.device_put(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, value)


def host_memory(array: jax.Array) -> bool:
    """True if NumPy can read the whole array in place: it is on one CPU device of this process.

    NumPy stores int4 differently from JAX, so int4 is always copied.
    """
    devices: list[Any] = list(array.sharding.device_set)
    alone = len(devices) == 1 and array.is_fully_addressable
    return alone and devices[0].platform == "cpu" and array.dtype != jnp.int4


def fetched(array: jax.Array) -> np.ndarray:
    """Return a copy on the host, in every process, that is freed with its last reference.

    JAX caches the host copy of an array for the lifetime of that array; here the array is a temporary one.  For an array
    of several processes, every process must call this.
    """
    if host_memory(array):
        return np.asarray(array)
    own = jnp.copy(array)
    if own.is_fully_addressable or own.is_fully_replicated:
        return np.asarray(own)
    whole: np.ndarray = multihost_utils.process_allgather(own, tiled=True)
    return whole


def fetched_part(stack: jax.Array, index: int) -> np.ndarray:
    """Return :func:`fetched` of ``stack[index]``, without copying the rest."""
    return np.asarray(stack)[index] if host_memory(stack) else fetched(stack[index])
