"""Read and write a Llama-family model as a Hugging Face folder: config.json, tokenizer.json, safetensors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ponderttt.errors import PonderTTTError
from ponderttt.models.llama import BLOCK_WEIGHTS, LlamaConfig
from ponderttt.models.tensors import EMBEDDING, UNEMBEDDING, Checkpoint, LazyTensor, stacked_parts
from ponderttt.provenance import atomic_path, write_json

CONFIG, TOKENIZER, INDEX = "config.json", "tokenizer.json", "model.safetensors.index.json"
#: The unembedding has a shard of its own, since most jobs need nothing else of the model.
UNEMBEDDING_SHARD, BLOCKS_SHARD = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
_DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a model folder, or an error of one line."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise PonderTTTError(f"{path}: missing; fetch the model again") from None
    except (ValueError, UnicodeDecodeError):
        raise PonderTTTError(f"{path}: not readable as JSON; fetch the model again") from None
    if not isinstance(found, dict):
        raise PonderTTTError(f"{path}: expected a JSON object; fetch the model again")
    return found


def read_config(folder: Path) -> LlamaConfig:
    """The shape that a folder's config.json declares.

    Raises:
        PonderTTTError: another architecture, or a feature of it that this model does not have.
    """
    path = folder / CONFIG
    found = read_json(path)
    if found.get("model_type") != "llama":
        raise PonderTTTError(f"{path}: holds a {found.get('model_type')} model; family llama expects llama")
    if found.get("hidden_act", "silu") != "silu":
        raise PonderTTTError(f"{path}: activation {found['hidden_act']} is not supported, only silu")
    rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise PonderTTTError(f"{path}: scaled rotary positions are not supported")
    try:
        return LlamaConfig(
            vocab_size=found["vocab_size"],
            layers=found["num_hidden_layers"],
            width=found["hidden_size"],
            heads=found["num_attention_heads"],
            kv_heads=found.get("num_key_value_heads") or found["num_attention_heads"],
            head_dim=found.get("head_dim") or found["hidden_size"] // found["num_attention_heads"],
            mlp_width=found["intermediate_size"],
            rope_base=float(found.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
            norm_eps=float(found["rms_norm_eps"]),
            max_context=found["max_position_embeddings"],
            tied=found.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise PonderTTTError(f"{path}: the key {error} is missing") from None


def read_folder(folder: Path) -> Checkpoint:
    """Configuration and lazily read tensors of a folder with one or many safetensors files.

    Raises:
        PonderTTTError: a missing, truncated or unreadable file.
    """
    config = read_config(folder)
    if (folder / INDEX).exists():
        names = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        raise PonderTTTError(f"{folder}: no safetensors file; fetch the model again")
    tensors: dict[str, LazyTensor] = {}
    for name in names:
        for tensor in read_file(folder / name):
            if tensor.name in tensors:
                raise PonderTTTError(f"{folder / name}: tensor {tensor.name} is in another file too")
            tensors[tensor.name] = tensor
    return Checkpoint(folder, config, tensors, lambda name: name)


def read_file(path: Path) -> list[LazyTensor]:
    """The tensors of one safetensors file, mapped into memory: nothing is read before it is asked for.

    The format is the length of a JSON header (8 bytes, little-endian), the header, and the tensors' bytes.
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
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        if start + end > size:
            raise damaged
        if entry["dtype"] not in _DTYPES:
            raise PonderTTTError(
                f"{path}: tensor {name} is of type {entry['dtype']}; known: {', '.join(_DTYPES)}"
            )
        if math.prod(shape) * _DTYPES[entry["dtype"]].itemsize != end - begin:
            raise damaged
        offset, dtype = start + begin, _DTYPES[entry["dtype"]]
        place = (path, offset) if entry["dtype"] == "F32" else None
        found.append(LazyTensor(name, shape, partial(_read, path, dtype, offset, shape), place))
    return found


def _read(path: Path, dtype: np.dtype, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.memmap(path, dtype, "r", offset, shape).astype(np.float32, copy=False)


def _write(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write float32 tensors in the given order, which the safetensors library would change."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": (end, end + array.nbytes)}
        end += array.nbytes
    text = json.dumps(header).encode()
    # Spaces after the header put the first tensor on a 64-byte boundary, where JAX can use it in place.
    text += b" " * (-(8 + len(text)) % 64)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, np.float32).data)


def write_folder(
    folder: Path, config: LlamaConfig, tensors: Mapping[str, np.ndarray], tokenizer_json: str
) -> tuple[str, ...]:
    """Write a model as a folder that this package and transformers read; the names of the files, in order.

    Tensors that are stacked in memory lie one after the other in the file, so that opening it copies nothing.
    """
    alone = EMBEDDING if config.tied else UNEMBEDDING
    stacked = [name for kind in BLOCK_WEIGHTS for name in stacked_parts(config, kind)]
    others = [name for name in tensors if name not in {alone, *stacked}]
    shards = {UNEMBEDDING_SHARD: [alone], BLOCKS_SHARD: [*stacked, *others]}
    for shard, names in shards.items():
        with atomic_path(folder / shard) as temporary:
            _write(temporary, {name: tensors[name] for name in names})
    weight_map = {name: shard for shard, names in shards.items() for name in names}
    total = sum(array.nbytes for array in tensors.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_json(
        folder / CONFIG,
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": config.vocab_size,
            "num_hidden_layers": config.layers,
            "hidden_size": config.width,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads,
            "head_dim": config.head_dim,
            "intermediate_size": config.mlp_width,
            "rope_theta": config.rope_base,
            "rms_norm_eps": config.norm_eps,
            "max_position_embeddings": config.max_context,
            "tie_word_embeddings": config.tied,
            "hidden_act": "silu",
            "dtype": "float32",
        },
    )
    with atomic_path(folder / TOKENIZER) as temporary:
        temporary.write_text(tokenizer_json)
    return UNEMBEDDING_SHARD, BLOCKS_SHARD, INDEX, CONFIG, TOKENIZER
