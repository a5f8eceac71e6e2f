"""Parameters over many devices: logical axes, and which axis of the mesh holds each.

A mesh has the axes ``data`` (streams), ``fsdp`` (streams, and rows of parameters that are gathered when they are used) and
``tensor`` (heads, the inside of MLPs, the vocabulary).  The program is the one of a single device; the compiler puts in the
communication (Xu et al. 2021, arXiv:2105.04663).  ``jax.set_mesh`` puts a mesh to use.
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
#: Logical axis → axis of the mesh; what is not named here is the same everywhere.
RULES: Mapping[str, str] = {"embed": "fsdp", "heads": "tensor", "mlp": "tensor", "vocab": "tensor"}
#: Axes of the mesh that share the streams of a batch.
BATCH = ("data", "fsdp")
#: Logical axes of every parameter, by name, as one block has it.
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
#: Vectors of the width of the residual stream or of a head, too small to be cut.
_WHOLE = re.compile(r".*norm(_bias)?|(attention_out|mlp_down)_bias")
_BLOCKS = ("blocks_before", "blocks_after")


def in_use() -> bool:
    """Whether what is being traced is for several devices: then no loop goes over an axis that they share."""
    return jax.sharding.get_abstract_mesh().size > 1


def logical_axes(name: str, dimensions: int, stacked: bool) -> tuple[str | None, ...]:
    """Logical axes of a parameter; those of blocks are stacked along a leading axis of layers.

    Raises:
        KeyError: a parameter that nobody described.
    """
    own = dimensions - stacked
    axes = (None,) * own if _WHOLE.fullmatch(name) else LOGICAL[name]
    if len(axes) != own:
        raise KeyError(f"{name} has {own} axes, of which {len(axes)} are described")
    return ("layers", *axes) if stacked else axes


def partition(axes: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Where each axis goes; one that its part of the mesh does not divide stays whole."""
    names = [RULES.get(axis or "") for axis in axes]
    return PartitionSpec(
        *(
            name if name is not None and size % mesh.shape[name] == 0 else None
            for name, size in zip(names, shape, strict=True)
        )
    )


def parse_mesh(text: str) -> dict[str, int]:
    """``8`` (all on ``tensor``) or ``data=2,fsdp=2,tensor=2``.

    Raises:
        PonderTTTError: not a mesh; the message says what one looks like.
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
    """A mesh of the devices that there are.

    Raises:
        PonderTTTError: there are fewer.
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
    """A sharding for every leaf of a decoder's parameters (arrays, or their shapes)."""

    def of(path: Any, leaf: Any) -> NamedSharding:
        names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
        stacked = any(name in _BLOCKS for name in names)
        name = names[names.index(next(n for n in names if n in (*_BLOCKS, "outer"))) + 1]
        # The scales of a quantised matrix go where its rows go; a row has few of them.
        return NamedSharding(mesh, partition(logical_axes(name, leaf.ndim, stacked), leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(of, params)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of [B, …] arrays: streams apart, everything else whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def sharding_of(
    name: str, shape: tuple[int, ...], mesh: Mesh | None, *, stacked: bool
) -> NamedSharding | None:
    """How the devices of a mesh share a parameter, as :func:`parameter_shardings` has it; ``None`` without a mesh."""
    if mesh is None:
        return None
    return NamedSharding(mesh, partition(logical_axes(name, len(shape), stacked), shape, mesh))


def placed(name: str, value: Any, mesh: Mesh | None, *, stacked: bool) -> Any:
    """A parameter of the host on its devices, see :func:`sharding_of`; each of them is sent its own part, and no more."""

    def put(leaf: np.ndarray) -> jax.Array:
        sharding = sharding_of(name, leaf.shape, mesh, stacked=stacked)
        if sharding is None:
            return jax.device_put(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, value)


def host_memory(array: jax.Array) -> bool:
    """Whether the array lies, whole, in memory that NumPy can read: on one CPU device of this process.

    NumPy's int4 is laid out otherwise than JAX's, so that it is always a copy.
    """
    devices: list[Any] = list(array.sharding.device_set)
    alone = len(devices) == 1 and array.is_fully_addressable
    return alone and devices[0].platform == "cpu" and array.dtype != jnp.int4


def fetched(array: jax.Array) -> np.ndarray:
    """A copy on the host, in every process, which lives no longer than whoever holds it.

    JAX keeps what it has copied to the host for as long as the array, here of one that nobody else has.  Every process
    calls this for an array of several processes.
    """
    if host_memory(array):
        return np.asarray(array)
    own = jnp.copy(array)
    if own.is_fully_addressable or own.is_fully_replicated:
        return np.asarray(own)
    whole: np.ndarray = multihost_utils.process_allgather(own, tiled=True)
    return whole


def fetched_part(stack: jax.Array, index: int) -> np.ndarray:
    """:func:`fetched` of ``stack[index]``: no more of it is copied at a time."""
    return np.asarray(stack)[index] if host_memory(stack) else fetched(stack[index])
