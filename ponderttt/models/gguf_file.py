"""Read a Llama-family model from one GGUF file: configuration, de-quantised tensors, tokenizer."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ponderttt.errors import PonderTTTError
from ponderttt.models.llama import LlamaConfig
from ponderttt.models.tensors import EMBEDDING, FINAL_NORM, UNEMBEDDING, Checkpoint, LazyTensor
from ponderttt.models.tokenizer import Tokenizer, from_vocabulary

_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES = {"token_embd": EMBEDDING, "output_norm": FINAL_NORM, "output": UNEMBEDDING}


class GGUFFile:
    """An open GGUF file.

    Raises:
        PonderTTTError: no such file, not a GGUF file, or a truncated one.
    """

    def __init__(self, path: Path | str) -> None:
        from gguf import GGUFReader

        self.path = Path(path)
        if not self.path.is_file():
            raise PonderTTTError(f"{self.path}: no such model file")
        try:
            self._reader = GGUFReader(self.path)
        except (ValueError, IndexError, KeyError, OverflowError, MemoryError, UnicodeDecodeError) as error:
            raise PonderTTTError(
                f"{self.path}: truncated or not a GGUF file; delete it and fetch the model again"
            ) from error

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value; an error names the key if it is absent and has no default."""
        found = self._reader.get_field(key)
        if found is not None:
            return found.contents()
        if default is None:
            raise PonderTTTError(f"{self.path}: metadata key {key} is missing")
        return default

    def config(self) -> LlamaConfig:
        """The shape that the file's metadata declares."""
        architecture = self.field("general.architecture")
        if architecture != "llama":
            raise PonderTTTError(f"{self.path}: holds a {architecture} model; family llama expects llama")
        if self.field("llama.rope.scaling.type", "none") != "none":
            raise PonderTTTError(f"{self.path}: scaled rotary positions are not supported")
        width, heads = self.field("llama.embedding_length"), self.field("llama.attention.head_count")
        return LlamaConfig(
            vocab_size=len(self.field("tokenizer.ggml.tokens")),
            layers=self.field("llama.block_count"),
            width=width,
            heads=heads,
            kv_heads=self.field("llama.attention.head_count_kv", heads),
            head_dim=self.field("llama.attention.key_length", width // heads),
            mlp_width=self.field("llama.feed_forward_length"),
            rope_base=_written_as(self.field("llama.rope.freq_base", 10_000.0)),
            norm_eps=_written_as(self.field("llama.attention.layer_norm_rms_epsilon")),
            max_context=self.field("llama.context_length"),
            tied=all(tensor.name != "output.weight" for tensor in self._reader.tensors),
        )

    def checkpoint(self) -> Checkpoint:
        """Configuration and tensors, de-quantised to float32 as they are read."""
        config = self.config()
        tensors = {}
        for tensor in self._reader.tensors:
            name = _hugging_face_name(tensor.name)
            # GGUF lists dimensions innermost first.
            shape = tuple(int(size) for size in reversed(tensor.shape))
            heads = {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.split(".")[-2])
            tensors[name] = LazyTensor(tensor.name, shape, partial(_read, tensor, shape, heads))
        return Checkpoint(self.path, config, tensors, _gguf_name)

    def tokenizer(self) -> Tokenizer:
        """The byte-level BPE tokenizer that the file carries."""
        model = self.field("tokenizer.ggml.model")
        if model != "gpt2":
            raise PonderTTTError(
                f"{self.path}: its tokenizer is {model}; only byte-level BPE (gpt2) is supported"
            )
        try:
            return from_vocabulary(
                tokens=self.field("tokenizer.ggml.tokens"),
                kinds=self.field("tokenizer.ggml.token_type"),
                merges=self.field("tokenizer.ggml.merges"),
                splitter=self.field("tokenizer.ggml.pre", "default"),
            )
        except PonderTTTError as error:
            raise PonderTTTError(f"{self.path}: {error}") from None


def _written_as(value: float) -> float:
    """The decimal number that a float32 of the file was written as: 1e-5, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _hugging_face_name(name: str) -> str:
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if block and block[2] in _BLOCK_NAMES:
        return f"model.layers.{block[1]}.{_BLOCK_NAMES[block[2]]}.weight"
    return _TOP_NAMES.get(name.removesuffix(".weight"), name)


def _gguf_name(name: str) -> str:
    block = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
    if block:
        return f"blk.{block[1]}.{next(k for k, v in _BLOCK_NAMES.items() if v == block[2])}.weight"
    return next(f"{k}.weight" for k, v in _TOP_NAMES.items() if v == name)


def _read(tensor: Any, shape: tuple[int, ...], heads: int | None) -> np.ndarray:
    """De-quantise a tensor; for queries and keys, give rotary pairs back their places.

    llama.cpp rotates neighbours (2i, 2i + 1) where this model rotates halves (i, i + H/2), so the rows of each
    head were interleaved when the file was made.
    """
    from gguf.quants import dequantize

    values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False).reshape(shape)
    if heads is None:
        return values
    pairs = values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:])
    return pairs.swapaxes(1, 2).reshape(shape)
