"""Read and write a model as a Hugging Face folder: config.json, tokenizer.json, safetensors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import atomic_path, write_json
from ponderttt.models.config_json import CONFIG, read_json, read_shape, shape_json
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Shape
from ponderttt.models.parameter import LazyTensor
from ponderttt.models.tensors import Checkpoint, stacked_parts, tensor_digest, tensor_shapes

TOKENIZER, INDEX, WHOLE = "tokenizer.json", "model.safetensors.index.json", "model.safetensors"
_CONVERT = "load the model with transformers and save it with save_pretrained"
#: The unembedding has its own shard: most jobs need only that part of the model.
UNEMBEDDING_SHARD, BLOCKS_SHARD = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
_DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


def read_folder(folder: Path, family: str | None = None) -> Checkpoint:
    """Read the configuration and, lazily, the tensors of a folder with one or many safetensors files.

    Raises:
        PonderTTTError: a missing, truncated or unreadable file.
    """
    config = read_shape(folder, family)
    described = family_of(config)
    tensors: dict[str, LazyTensor] = {}
    for file in _files(folder):
        for tensor in read_file(folder / file, lambda name: described.tensor_name(name) is not None):
            name = described.tensor_name(tensor.name)
            assert name is not None
            if name in tensors:
                raise PonderTTTError(f"{folder / file}: tensor {tensor.name} is in another file too")
            tensors[name] = tensor
    head, embedding = (described.OUTER[name] for name in ("unembedding", "embedding"))
    if config.tied and head in tensors and embedding in tensors:
        # Digests, so that one of the two is in memory at a time.
        if tensor_digest(tensors[head].read()) != tensor_digest(tensors[embedding].read()):
            raise PonderTTTError(
                f"{folder}: tensor {tensors[head].name} differs from the embedding, but {CONFIG} ties them; "
                "set tie_word_embeddings to false if the tensor is right"
            )
        del tensors[head]
    return Checkpoint(folder, config, tensors, lambda name: name)


def _files(folder: Path) -> list[str]:
    """Return the names of the files of the model; other safetensors files may be in the folder.

    Like transformers, read ``model.safetensors`` alone, or else what the index names.
    """
    if (folder / WHOLE).exists():
        return [WHOLE]
    if (folder / INDEX).exists():
        return _indexed_files(folder / INDEX)
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if names and all(name.startswith("adapter_") for name in names):
        raise PonderTTTError(
            f"{folder}: holds an adapter, not a model; merge it into its model and save that"
        )
    if names:
        return [name for name in names if name.startswith("model-")] or names
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".gguf"))
    if not others:
        raise PonderTTTError(
            f"{folder}: no safetensors file; fetch the model again, or if it has none, {_CONVERT}"
        )
    remedy = "give the path of the file itself" if others[0].endswith(".gguf") else _CONVERT
    raise PonderTTTError(f"{folder}: holds {others[0]}, and only safetensors are read of a folder; {remedy}")


def _indexed_files(index: Path) -> list[str]:
    """Return the files that an index names."""
    match read_json(index):
        case {"weight_map": dict(files)} if files and all(isinstance(file, str) for file in files.values()):
            return sorted(set(files.values()))
    raise PonderTTTError(f"{index}: damaged, it names no files; delete it and fetch the model again")


def _everything(name: str) -> bool:
    return True


def read_file(path: Path, wanted: Callable[[str], bool] = _everything) -> list[LazyTensor]:
    """Return the tensors of one safetensors file, which is mapped into memory and read on demand.

    The format is the length of a JSON header (8 bytes, little-endian), the header, and the tensors' bytes.

    Args:
        path: the file.
        wanted: True for names of tensors to return; others may have any type.

    Raises:
        PonderTTTError: a missing or damaged file, or a tensor of an unknown type.
    """
    if not path.is_file():
        raise PonderTTTError(f"{path}: missing; fetch the model again")
    damaged = PonderTTTError(
        f"{path}: truncated or not a safetensors file; delete it and fetch the model again"
    )
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8)) if start <= size else None
    except ValueError:
        raise damaged from None
    if not isinstance(header, dict):
        raise damaged
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        match entry:
            case {"dtype": str(kind), "shape": list(sizes), "data_offsets": [int(begin), int(end)]} if all(
                isinstance(n, int) and n >= 0 for n in sizes
            ):
                shape = tuple(sizes)
            case _:
                raise damaged
        if not 0 <= begin <= end <= size - start:
            raise damaged
        if not wanted(name):
            continue
        if kind not in _DTYPES:
            raise PonderTTTError(f"{path}: tensor {name} is of type {kind}; known: {', '.join(_DTYPES)}")
        if math.prod(shape) * _DTYPES[kind].itemsize != end - begin:
            raise damaged
        offset, dtype = start + begin, _DTYPES[kind]
        place = (path, offset) if kind == "F32" else None
        found.append(LazyTensor(name, shape, partial(_read, path, dtype, offset, shape), place))
    return found


def _read(path: Path, dtype: np.dtype, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, dtype, "r", offset, shape).astype(np.float32, copy=False)


def _write(path: Path, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], np.ndarray]) -> None:
    """Write float32 tensors, one in memory at a time, in the given order (the safetensors library would sort them)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (end, end + size)}
        end += size
    text = json.dumps(header).encode()
    # Spaces after the header put the first tensor on a 64-byte boundary, where JAX can use it in place.
    text += b" " * (-(8 + len(text)) % 64)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            file.write(np.ascontiguousarray(read(name), np.float32).data)


def write_folder(
    folder: Path,
    config: Shape,
    read: Callable[[str], np.ndarray],
    tokenizer_json: str,
    ends: Collection[int] = (),
) -> tuple[str, ...]:
    """Write a model as a folder that this package and transformers read; return the names of the files.

    Tensors that are stacked in memory are adjacent in the file, so that opening it copies nothing.

    Args:
        folder: folder to write to.
        config: shape of the model.
        read: function that returns a tensor by its Hugging Face name; called once for each.
        tokenizer_json: definition of the tokenizer.
        ends: tokens that end a text.
    """
    sizes = tensor_shapes(config)
    family = family_of(config)
    alone = family.OUTER["embedding" if config.tied else "unembedding"]
    stacked = [name for kind in family.block_shapes(config) for name in stacked_parts(config, kind)]
    others = [name for name in sizes if name not in {alone, *stacked}]
    shards = {UNEMBEDDING_SHARD: [alone], BLOCKS_SHARD: [*stacked, *others]}
    for shard, names in shards.items():
        with atomic_path(folder / shard) as temporary:
            _write(temporary, {name: sizes[name] for name in names}, read)
    weight_map = {name: shard for shard, names in shards.items() for name in names}
    total = sum(4 * math.prod(shape) for shape in sizes.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_json(folder / CONFIG, shape_json(config, ends))
    with atomic_path(folder / TOKENIZER) as temporary:
        temporary.write_text(tokenizer_json, encoding="utf-8")
    return UNEMBEDDING_SHARD, BLOCKS_SHARD, INDEX, CONFIG, TOKENIZER
