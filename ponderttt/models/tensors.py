"""Named tensors of a checkpoint and how they become the parameters of a :class:`~ponderttt.models.decoder.Decoder`.

Every reader hands over the same thing: a configuration and lazily read tensors under their Hugging Face names.
Assembly is strict: every tensor is consumed, every parameter filled, every shape checked.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ponderttt.errors import PonderTTTError
from ponderttt.models.decoder import Decoder
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Shape
from ponderttt.models.quantised import EXACT, Precision, opened


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is read when asked for.

    Attributes:
        name: in the file.
        shape: of the tensor.
        read: gives it as float32.
        place: file and offset in bytes of plain float32 values, for mapping them into memory instead.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    place: tuple[Path, int] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """What a model file or folder holds.

    Attributes:
        path: where it was read from, for messages.
        config: the shape of the model.
        tensors: Hugging Face name → tensor; a tensor of no known name stands under its own.
        file_name: Hugging Face name → name in this kind of file, for messages about missing tensors.
    """

    path: Path
    config: Shape
    tensors: Mapping[str, LazyTensor]
    file_name: Callable[[str], str]


def tensor_shapes(config: Shape) -> dict[str, tuple[int, ...]]:
    """Hugging Face name → shape, as files have it, of every tensor of a model."""
    family = family_of(config)
    outer, blocks, parts = family.outer_shapes(config), family.block_shapes(config), family.parts(config)
    shapes = {family.OUTER[name]: shape for name, shape in outer.items() if name != "unembedding"}
    for layer in range(config.layers):
        for name, shape in blocks.items():
            for part in parts[name]:
                own = (part.rows, *shape[1:])
                shapes[family.BLOCK.format(layer) + part.name] = (
                    own[::-1] if name in family.TRANSPOSED else own
                )
    if not config.tied:
        shapes[family.OUTER["unembedding"]] = outer["unembedding"]
    return shapes


def transposed_tensors(config: Shape) -> frozenset[str]:
    """Hugging Face names of the tensors that a checkpoint holds as [in, out]."""
    names = family_of(config).TRANSPOSED
    return frozenset(part for name in names for part in stacked_parts(config, name))


def check_tensors(checkpoint: Checkpoint) -> None:
    """Compare a checkpoint's tensors with those that its configuration asks for.

    Raises:
        PonderTTTError: a tensor is missing, mis-shaped, or belongs nowhere; the message names it.
    """
    expected, found = tensor_shapes(checkpoint.config), checkpoint.tensors
    for name, shape in expected.items():
        if name not in found:
            raise PonderTTTError(
                f"{checkpoint.path}: tensor {checkpoint.file_name(name)} is missing; this is not a complete model file, fetch it again"
            )
        if tuple(found[name].shape) != shape:
            raise PonderTTTError(
                f"{checkpoint.path}: tensor {found[name].name} has shape {tuple(found[name].shape)}, its configuration asks for {shape}"
            )
    extra = [tensor.name for name, tensor in found.items() if name not in expected]
    if extra:
        raise PonderTTTError(
            f"{checkpoint.path}: tensor {extra[0]} belongs nowhere in a plain {checkpoint.config.family} model ({len(extra)} such); this architecture is not supported"
        )


def assemble(checkpoint: Checkpoint, precision: Precision = EXACT, split_layer: int | None = None) -> Decoder:
    """Read every tensor once into a :class:`Decoder`, one parameter at a time.

    Raises:
        PonderTTTError: see :func:`check_tensors`; or ``split_layer`` lies outside the model.
    """
    check_tensors(checkpoint)
    config, tensors, family = checkpoint.config, checkpoint.tensors, family_of(checkpoint.config)
    if split_layer is not None and not 0 <= split_layer <= config.layers:
        raise PonderTTTError(
            f"split_layer is {split_layer}; {checkpoint.path} has {config.layers} blocks, so 0 to {config.layers}"
        )
    blocks = {}
    for name, shape in family.block_shapes(config).items():
        parts = [tensors[part] for part in stacked_parts(config, name)]
        joined = _joined(parts, (config.layers, *shape), precision.dtype, name in family.TRANSPOSED)
        blocks[name] = _kept(name, joined, precision, stacked=True)
    outer = {
        name: _kept(
            name, _joined([tensors[family.OUTER[name]]], shape, precision.dtype), precision, stacked=False
        )
        for name, shape in family.outer_shapes(config).items()
    }
    return Decoder(config, outer, blocks, split_layer)


def _kept(name: str, array: np.ndarray, precision: Precision, *, stacked: bool) -> Any:
    # Memory that nobody else holds is taken over, not copied.
    return array if precision.kind is None else precision.kept(name, array, stacked=stacked)


def stacked_parts(config: Shape, name: str) -> list[str]:
    """Names of the tensors whose rows, one after the other, are the stacked parameter ``name`` of all blocks."""
    family = family_of(config)
    parts = family.parts(config)[name]
    return [family.BLOCK.format(layer) + part.name for layer in range(config.layers) for part in parts]


def _joined(
    parts: Sequence[LazyTensor], shape: tuple[int, ...], dtype: str, transposed: bool = False
) -> np.ndarray:
    """Tensors as one array of ``shape``: mapped where they lie one after the other in a file, or else copied."""
    places = [part.place for part in parts]
    ends = [
        place and (place[0], place[1] + 4 * math.prod(part.shape))
        for place, part in zip(places, parts, strict=True)
    ]
    if dtype == "float32" and not transposed and places[0] and places[1:] == ends[:-1]:
        return np.asarray(np.memmap(places[0][0], np.float32, "r", places[0][1], shape))
    joined = _empty(shape, dtype)
    rows, row = joined.reshape(-1, *parts[0].shape[::-1][1:] if transposed else parts[0].shape[1:]), 0
    for part in parts:
        values = part.read().T if transposed else part.read()
        rows[row : row + len(values)] = values
        row += len(values)
    return joined


def _empty(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Uninitialised memory on a 64-byte boundary, which JAX takes over on a CPU instead of copying."""
    kind = jnp.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(kind).reshape(shape)


def disassemble(model: Decoder) -> dict[str, np.ndarray]:
    """Hugging Face name → parameter, the inverse of :func:`assemble` and independent of where it was split."""
    config, family = model.config, family_of(model.config)
    found = {family.OUTER[name]: np.asarray(opened(array)) for name, array in model.outer.arrays().items()}
    parts, layer = family.parts(config), 0
    for stack in (model.blocks_before, model.blocks_after):
        stacked = {name: np.asarray(opened(array)) for name, array in stack.arrays().items()}
        for index in range(len(next(iter(stacked.values())))):
            for name, array in stacked.items():
                row = 0
                for part in parts[name]:
                    rows = array[index, row : row + part.rows]
                    stored = rows.T if name in family.TRANSPOSED else rows
                    found[family.BLOCK.format(layer) + part.name] = stored
                    row += part.rows
            layer += 1
    return {name: found[name] for name in tensor_shapes(config)}


def tensors_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, dtypes, shapes and bytes of tensors, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def model_digest(graph: nnx.GraphDef[Decoder], params: Any) -> str:
    """:func:`tensors_digest` of all parameters as they are now: changes when any bit of the backbone moves."""
    return tensors_digest(disassemble(nnx.merge(graph, params)))


def random_tensors(config: Shape, key: jax.Array) -> dict[str, np.ndarray]:
    """Random weights of a model's shape, scaled so that hidden states and gradients keep their size."""
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).astype(np.uint32))
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        noise = generator.standard_normal(shape, dtype=np.float32)
        if len(shape) == 1:
            centre = 0.0 if name.endswith("bias") else family_of(config).UNIT_NORM
            tensors[name] = 0.1 * noise + np.float32(centre)
        else:
            tensors[name] = noise * np.float32(shape[-1] ** -0.5)
    return tensors


def in_memory(config: Shape, arrays: Mapping[str, np.ndarray]) -> Checkpoint:
    """A checkpoint of arrays under their Hugging Face names."""
    tensors = {name: LazyTensor(name, array.shape, partial(_as_is, array)) for name, array in arrays.items()}
    return Checkpoint(Path("memory"), config, tensors, lambda name: name)


def _as_is(array: np.ndarray) -> np.ndarray:
    return array
