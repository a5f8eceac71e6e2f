"""Write small real model files: a byte-level tokenizer's tables, GGUF files, safetensors folders."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from safetensors.numpy import save_file
from tokenizers import pre_tokenizers

from ponderttt.models import tensors, weights
from ponderttt.models.backbone import Backbone, make_backbone
from ponderttt.models.families.family import Shape
from ponderttt.models.families.llama import LlamaConfig
from ponderttt.models.quantised import EXACT
from ponderttt.settings.model import ModelConfig

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ Ġ", "d e", "de f", "Ġ t", "ĠĠ ĠĠ", "Ã ©", "r e", "t u", "re tu", "retu r", "retur n"]
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = [*SPECIAL, *BYTES, *(merge.replace(" ", "") for merge in MERGES)]
KINDS = [3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL))

#: Widths are multiples of 32, the block of GGUF's quantised types.
SHAPE = LlamaConfig(
    vocab_size=len(TOKENS),
    layers=2,
    width=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    mlp_width=96,
    rope_base=1e5,
    norm_eps=1e-5,
    max_context=128,
    tied=True,
)

#: Widths are multiples of 256, the block of the K types.
K_SHAPE = replace(SHAPE, width=256, head_dim=64, mlp_width=256)
#: Offsets in bytes of the half-precision scales of a block; random ones would give NaN or huge values.
K_SCALES = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}

_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name: str) -> str:
    """Return the name of a tensor in a GGUF file; names that are not Hugging Face's stay as they are."""
    if not name.startswith("model.layers."):
        return _TOP.get(name, name)
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Order the rows of each head as llama.cpp wants them: 0, H/2, 1, H/2 + 1, …"""
    size = len(rows) // heads
    order = [
        head * size + pair + half * (size // 2)
        for head in range(heads)
        for pair in range(size // 2)
        for half in range(2)
    ]
    return rows[order]


def quantised(array: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Return the bytes of a matrix in one of GGUF's types; for the K types, which gguf cannot write, random blocks."""
    if kind.name not in K_SCALES:
        return quantize(array, kind)
    values, size = GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(zlib.crc32(array.tobytes()))
    blocks = random.integers(0, 256, (array.size // values, size), np.uint8)
    for start in K_SCALES[kind.name]:
        scales = random.uniform(1e-3, 1e-2, (len(blocks), 1)).astype(np.float16)
        blocks[:, start : start + 2] = scales.view(np.uint8)
    return blocks.reshape(len(array), -1)


def write_gguf(
    path: Path,
    config: LlamaConfig,
    arrays: Mapping[str, np.ndarray],
    kind: GGMLQuantizationType | None = None,
    splitter: str = "smollm",
    architecture: str = "llama",
    change: Callable[[GGUFWriter], None] = lambda writer: None,
) -> None:
    """Write a model as llama.cpp's converter does; matrices in type ``kind`` if given, metadata after ``change``."""
    writer = begin_gguf(path, architecture, config, splitter)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    for name, array in arrays.items():
        heads = {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.split(".")[-2])
        stored = interleave(array, heads) if heads else array
        if kind is not None and array.ndim == 2:
            writer.add_tensor(gguf_name(name), quantised(stored, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(stored))
    change(writer)
    finish_gguf(writer)


def begin_gguf(path: Path, architecture: str, config: Shape, splitter: str) -> GGUFWriter:
    """Start a file with the metadata that all families share, and the tokenizer's tables."""
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config.layers)
    writer.add_context_length(config.max_context)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.heads)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter)
    writer.add_eos_token_id(SPECIAL.index("<|im_start|>"))
    writer.add_token_list(TOKENS)
    writer.add_token_types(KINDS)
    writer.add_token_merges(MERGES)
    return writer


def finish_gguf(writer: GGUFWriter) -> None:
    """Write the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_hugging_face_folder(
    folder: Path, config: LlamaConfig, arrays: Mapping[str, np.ndarray], tokenizer_json: str
) -> None:
    """Write a model as transformers does, in two shards with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(arrays)
    shards = {
        "model-00001-of-00002.safetensors": names[::2],
        "model-00002-of-00002.safetensors": names[1::2],
    }
    for file, members in shards.items():
        save_file({name: np.ascontiguousarray(arrays[name]) for name in members}, folder / file)
    weight_map = {name: file for file, members in shards.items() for name in members}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "llama",
                "vocab_size": config.vocab_size,
                "num_hidden_layers": config.layers,
                "hidden_size": config.width,
                "num_attention_heads": config.heads,
                "num_key_value_heads": config.kv_heads,
                "intermediate_size": config.mlp_width,
                "rope_theta": config.rope_base,
                "rms_norm_eps": config.norm_eps,
                "max_position_embeddings": config.max_context,
                "tie_word_embeddings": config.tied,
            }
        )
    )
    (folder / "tokenizer.json").write_text(tokenizer_json)


def load_backbone(config: ModelConfig) -> Backbone:
    """Return the backbone of a local file or folder, without converting it."""
    checkpoint, reader = weights.read_model(Path(config.source.path or ""), config.family)
    return make_backbone(tensors.assemble(checkpoint, EXACT, config.split_layer), reader)
