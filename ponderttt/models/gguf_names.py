"""How GGUF files name the metadata and the tensors of each family, and what they do to the values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from ponderttt.errors import PonderTTTError
from ponderttt.models.families.family import Shape
from ponderttt.models.families.gemma3 import Gemma3Config
from ponderttt.models.families.gpt2 import GPT2Config
from ponderttt.models.families.llama import LlamaConfig


class Fields(Protocol):
    """Reads a metadata value of one architecture; an error names the key if it is absent and has no default."""

    def __call__(self, key: str, default: Any = None) -> Any: ...


class GGUFFamily(NamedTuple):
    """How a GGUF file holds the models of one family."""

    #: ``(fields, vocab_size, tied) → shape``.
    shape: Callable[[Fields, int, bool], Shape]
    #: Name of a block's tensor in the file → in a Hugging Face checkpoint, without the block's own name.
    blocks: Mapping[str, str]
    #: The same of tensors outside of the blocks.
    outer: Mapping[str, str]
    #: ``(shape, Hugging Face name, values) → values``: undoes what the converter did.
    restore: Callable[[Any, str, np.ndarray], np.ndarray]


def hugging_face_name(family: GGUFFamily, block: str, name: str) -> str:
    """The Hugging Face name of a tensor of a file; a name that is not known stays as it is."""
    found = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
    if found and found[2] in family.blocks:
        return block.format(found[1]) + family.blocks[found[2]]
    return family.outer.get(name, name)


def gguf_name(family: GGUFFamily, block: str, name: str) -> str:
    """The inverse of :func:`hugging_face_name`."""
    found = re.fullmatch(re.escape(block).replace(r"\{\}", r"(\d+)") + "(.+)", name)
    if found:
        return f"blk.{found[1]}.{next(k for k, v in family.blocks.items() if v == found[2])}"
    return next(k for k, v in family.outer.items() if v == name)


def written_as(value: float) -> float:
    """The decimal number that a float32 of a file was written as: 1e-5, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _shared(fields: Fields, vocab_size: int, tied: bool) -> dict[str, Any]:
    """What files of every family say alike."""
    return {
        "vocab_size": vocab_size,
        "layers": fields("block_count"),
        "width": fields("embedding_length"),
        "heads": fields("attention.head_count"),
        "mlp_width": fields("feed_forward_length"),
        "max_context": fields("context_length"),
        "tied": tied,
    }


def _llama_shape(fields: Fields, vocab_size: int, tied: bool) -> LlamaConfig:
    if fields("rope.scaling.type", "none") != "none":
        raise PonderTTTError("scaled rotary positions are not supported")
    shared = _shared(fields, vocab_size, tied)
    return LlamaConfig(
        **shared,
        kv_heads=fields("attention.head_count_kv", shared["heads"]),
        head_dim=fields("attention.key_length", shared["width"] // shared["heads"]),
        rope_base=written_as(fields("rope.freq_base", 10_000.0)),
        norm_eps=written_as(fields("attention.layer_norm_rms_epsilon")),
    )


def _restore_llama(config: LlamaConfig, name: str, values: np.ndarray) -> np.ndarray:
    """Give rotary pairs of queries and keys back their places.

    llama.cpp rotates neighbours (2i, 2i + 1) of this family where this package rotates halves (i, i + H/2), so the rows
    of each head were interleaved when the file was made.
    """
    heads = {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return values
    pairs = values.reshape(heads, len(values) // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _gpt2_shape(fields: Fields, vocab_size: int, tied: bool) -> GPT2Config:
    norm_eps = written_as(fields("attention.layer_norm_epsilon"))
    return GPT2Config(**_shared(fields, vocab_size, tied), norm_eps=norm_eps)


def _gemma3_shape(fields: Fields, vocab_size: int, tied: bool) -> Gemma3Config:
    kind = fields("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise PonderTTTError(f"rotary positions scaled by {kind} are not supported")
    shared, head_dim = _shared(fields, vocab_size, tied), fields("attention.key_length")
    return Gemma3Config(
        **shared,
        kv_heads=fields("attention.head_count_kv"),
        head_dim=head_dim,
        norm_eps=written_as(fields("attention.layer_norm_rms_epsilon")),
        # Files do not say it: the largest model (62 blocks) divides by the width of a head of the residual stream.
        query_scalar=shared["width"] // shared["heads"] if shared["layers"] == 62 else head_dim,
        window=fields("attention.sliding_window"),
        local_rope_base=written_as(fields("rope.freq_base_swa", 10_000.0)),
        global_rope_base=written_as(fields("rope.freq_base", 1_000_000.0)),
        global_rope_factor=written_as(fields("rope.scaling.factor", 1.0)) if kind == "linear" else 1.0,
    )


def _restore_gemma3(config: Gemma3Config, name: str, values: np.ndarray) -> np.ndarray:
    """Norms are kept as they are used in the file, as their distance from one in a Hugging Face checkpoint."""
    return values - 1 if name.endswith("norm.weight") else values


def _as_stored(config: Shape, name: str, values: np.ndarray) -> np.ndarray:
    return values


_GATED = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_GPT2_BLOCK = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}

GGUF_FAMILIES: dict[str, GGUFFamily] = {
    "llama": GGUFFamily(
        _llama_shape,
        {**_GATED, "ffn_norm.weight": "post_attention_layernorm.weight"},
        _OUTER,
        _restore_llama,
    ),
    "gpt2": GGUFFamily(
        _gpt2_shape,
        {
            f"{own}.{kind}": f"{other}.{kind}"
            for own, other in _GPT2_BLOCK.items()
            for kind in ("weight", "bias")
        },
        {
            "token_embd.weight": "transformer.wte.weight",
            "position_embd.weight": "transformer.wpe.weight",
            "output_norm.weight": "transformer.ln_f.weight",
            "output_norm.bias": "transformer.ln_f.bias",
            "output.weight": "lm_head.weight",
        },
        _as_stored,
    ),
    "gemma3": GGUFFamily(
        _gemma3_shape,
        {
            **_GATED,
            "attn_q_norm.weight": "self_attn.q_norm.weight",
            "attn_k_norm.weight": "self_attn.k_norm.weight",
            "post_attention_norm.weight": "post_attention_layernorm.weight",
            "ffn_norm.weight": "pre_feedforward_layernorm.weight",
            "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
        },
        _OUTER,
        _restore_gemma3,
    ),
}
