"""Assemble a :class:`~ponderttt.models.decoder.Decoder` from the named tensors of a checkpoint, and take it apart.

Every reader returns the same: a configuration, and tensors under their Hugging Face names that are read on demand.
Assembly is strict: it uses every tensor, fills every parameter, and checks every shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ponderttt.errors import PonderTTTError
from ponderttt.models.decoder import Decoder, default_split
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Shape
from ponderttt.models.parameter import LazyTensor, parameter
from ponderttt.models.quantised import EXACT, Precision, is_quantised, opened
from ponderttt.models.sharding import fetched, fetched_part


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a model file or folder.

    Attributes:
        path: its path, for messages.
        config: shape of the model.
        tensors: Hugging Face name → tensor; one of unknown name is under its own.
        file_name: Hugging Face name → name in this kind of file, for messages about missing tensors.
    """

    path: Path
    config: Shape
    tensors: Mapping[str, LazyTensor]
    file_name: Callable[[str], str]


def tensor_shapes(config: Shape) -> dict[str, tuple[int, ...]]:
    """Return Hugging Face name → shape in a file, for every tensor of a model."""
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
    """Return Hugging Face names of the tensors that a checkpoint holds as [in, out]."""
    names = family_of(config).TRANSPOSED
    return frozenset(part for name in names for part in stacked_parts(config, name))


def check_tensors(checkpoint: Checkpoint) -> None:
    """Compare a checkpoint's tensors with those that its configuration requires.

    Raises:
        PonderTTTError: a tensor is missing, has another shape, or is not part of the model; the message names it.
    """
    expected, found = tensor_shapes(checkpoint.config), checkpoint.tensors
    for name, shape in expected.items():
        if name not in found:
            raise PonderTTTError(
                f"{checkpoint.path}: tensor {checkpoint.file_name(name)} is missing; this is not a complete model file, fetch it again"
            )
        if tuple(found[name].shape) != shape:
            raise PonderTTTError(
                f"{checkpoint.path}: tensor {found[name].name} has shape {tuple(found[name].shape)}, its configuration requires {shape}"
            )
    extra = [tensor.name for name, tensor in found.items() if name not in expected]
    if extra:
        raise PonderTTTError(
            f"{checkpoint.path}: tensor {extra[0]} is not part of a plain {checkpoint.config.family} model ({len(extra)} such tensors); this architecture is not supported"
        )


def assemble(
    checkpoint: Checkpoint,
    precision: Precision = EXACT,
    split_layer: int | None = None,
    mesh: Mesh | None = None,
) -> Decoder:
    """Read every tensor once into a :class:`Decoder`; each parameter is on its devices before the next one is read.

    Args:
        checkpoint: model to read.
        precision: how parameters are stored.
        split_layer: number of blocks in the prefix; ``None`` is :func:`~ponderttt.models.decoder.default_split`.
        mesh: devices that share the parameters; one device by default.

    Raises:
        PonderTTTError: see :func:`check_tensors`; or ``split_layer`` is larger than the model.
    """
    check_tensors(checkpoint)
    config, tensors, family = checkpoint.config, checkpoint.tensors, family_of(checkpoint.config)
    split = default_split(config.layers) if split_layer is None else split_layer
    if not 0 <= split <= config.layers:
        raise PonderTTTError(
            f"split_layer must be from 0 to {config.layers}, the number of blocks of {checkpoint.path}, got {split}"
        )

    def stack(first: int, last: int) -> dict[str, Any]:
        return {
            name: parameter(
                name,
                [tensors[part] for part in stacked_parts(config, name, first, last)],
                (last - first, *shape),
                precision,
                mesh,
                stacked=True,
                turned=name in family.TRANSPOSED,
            )
            for name, shape in family.block_shapes(config).items()
        }

    outer = {
        name: parameter(name, [tensors[family.OUTER[name]]], shape, precision, mesh, stacked=False)
        for name, shape in family.outer_shapes(config).items()
    }
    return Decoder(config, outer, stack(0, split), stack(split, config.layers))


def stacked_parts(config: Shape, name: str, first: int = 0, last: int | None = None) -> list[str]:
    """Return the names of the tensors whose joined rows are the stacked parameter ``name``.

    Blocks are ``first`` to ``last``, exclusive; all by default.
    """
    family = family_of(config)
    parts = family.parts(config)[name]
    layers = range(first, config.layers if last is None else last)
    return [family.BLOCK.format(layer) + part.name for layer in layers for part in parts]


def named_parameters(model: Decoder) -> Iterator[tuple[str, np.ndarray]]:
    """Yield Hugging Face names and parameters, in the layout of a file.

    Quantised parameters are opened one at a time, and those on devices are copied to the host one at a time.
    """
    config, family = model.config, family_of(model.config)
    for name, value in model.outer.arrays().items():
        yield family.OUTER[name], np.asarray(_opened(jax.tree.map(fetched, value)))
    parts = family.parts(config)
    for stack, first in ((model.blocks_before, 0), (model.blocks_after, model.split_layer)):
        for name, value in stack.arrays().items():
            turned = name in family.TRANSPOSED
            for index in range(jax.tree.leaves(value)[0].shape[0]):
                block = jax.tree.map(partial(fetched_part, index=index), value)
                row = 0
                for part in parts[name]:
                    own = slice(row, row + part.rows)
                    rows = np.asarray(_opened(jax.tree.map(itemgetter(own), block)))
                    yield family.BLOCK.format(first + index) + part.name, rows.T if turned else rows
                    row += part.rows


#: One program, so that only the result is in memory.
_open = jax.jit(opened)


def _opened(value: Any) -> Any:
    return _open(value) if is_quantised(value) else value


def disassemble(model: Decoder) -> dict[str, np.ndarray]:
    """Return Hugging Face name → parameter: the inverse of :func:`assemble`, for any split."""
    found = dict(named_parameters(model))
    return {name: found[name] for name in tensor_shapes(model.config)}


def tensor_digest(array: np.ndarray) -> str:
    """Return the sha256 of dtype, shape and bytes of a tensor."""
    flat = np.ascontiguousarray(array)
    total = hashlib.sha256(f"{flat.dtype} {flat.shape}\n".encode())
    total.update(flat.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def tensors_digest(digests: Mapping[str, str]) -> str:
    """Return the sha256 of the names and :func:`tensor_digest` of all tensors, sorted by name."""
    return hashlib.sha256(
        "".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()
    ).hexdigest()


def model_digest(graph: nnx.GraphDef[Decoder], params: Any) -> str:
    """Return :func:`tensors_digest` of the current parameters, which changes with any bit of the backbone."""
    named = named_parameters(nnx.merge(graph, params))
    return tensors_digest({name: tensor_digest(array) for name, array in named})


def random_tensors(config: Shape, key: jax.Array) -> dict[str, np.ndarray]:
    """Draw random weights of a model's shape, scaled so that hidden states and gradients keep their size."""
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
    """Return a checkpoint of arrays under their Hugging Face names."""
    tensors = {name: LazyTensor(name, array.shape, partial(_as_is, array)) for name, array in arrays.items()}
    return Checkpoint(Path("memory"), config, tensors, lambda name: name)


def _as_is(array: np.ndarray) -> np.ndarray:
    return array
