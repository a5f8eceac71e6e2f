"""How GGUF files name the metadata and tensors of each family, and how they change the values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ponderttt.errors import PonderTTTError
from ponderttt.models.families.family import Shape
from ponderttt.models.families.gemma3 import Gemma3Config
from ponderttt.models.families.gpt2 import GPT2Config
from ponderttt.models.families.llama import LlamaConfig
from ponderttt.models.gguf_metadata import Metadata


class GGUFFamily(NamedTuple):
    """How a GGUF file holds the models of one family."""

    #: ``(metadata of the architecture, vocab_size, tied) → shape``.
    shape: Callable[[Metadata, int, bool], Shape]
    #: Name of a block's tensor in the file → in a Hugging Face checkpoint, without the block's own name.
    blocks: Mapping[str, str]
    #: The same for tensors outside of the blocks.
    outer: Mapping[str, str]
    #: ``(shape, Hugging Face name, values) → values``: undoes the changes of the converter.
    restore: Callable[[Any, str, np.ndarray], np.ndarray]


def hugging_face_name(family: GGUFFamily, block: str, name: str) -> str:
    """Return the Hugging Face name of a tensor; an unknown name stays as it is."""
    found = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
    if found and found[2] in family.blocks:
        return block.format(found[1]) + family.blocks[found[2]]
    return family.outer.get(name, name)


def gguf_name(family: GGUFFamily, block: str, name: str) -> str:
    """Return the name in the file of a Hugging Face name: the inverse of :func:`hugging_face_name`."""
    found = re.fullmatch(re.escape(block).replace(r"\{\}", r"(\d+)") + "(.+)", name)
    if found:
        return f"blk.{found[1]}.{next(k for k, v in family.blocks.items() if v == found[2])}"
    return next(k for k, v in family.outer.items() if v == name)


def _shared(fields: Metadata, vocab_size: int, tied: bool) -> dict[str, Any]:
    """Read what files of every family have under the same keys."""
    if not fields.flag("attention.causal", True):
        raise PonderTTTError("attention.causal is false; only causal attention is supported")
    return {
        "vocab_size": vocab_size,
        "layers": fields.whole("block_count"),
        "width": fields.whole("embedding_length"),
        "heads": fields.whole("attention.head_count"),
        "mlp_width": fields.whole("feed_forward_length"),
        "max_context": fields.whole("context_length"),
        "tied": tied,
    }


def _rotary_factor(fields: Metadata, head_dim: int) -> float:
    """Return the factor that divides positions, by the rules of llama.cpp: linear without a type, 1 for the type none.

    Raises:
        PonderTTTError: positions are scaled in another way, or rotate only part of each head.
    """
    kind = fields.text("rope.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise PonderTTTError(f"rotary positions scaled by {kind} are not supported")
    for key in ("rope.dimension_count", "rope.dimension_count_swa"):
        if (turned := fields.whole(key, head_dim)) != head_dim:
            raise PonderTTTError(
                f"{key} is {turned} and heads have {head_dim} dimensions; partial rotary positions are not supported"
            )
    # The older key is of August 2023.
    factor = fields.number(
        "rope.scaling.factor", fields.number("rope.scale_linear", 1.0, or_zero=True), or_zero=True
    )
    return 1.0 if kind == "none" or factor == 0 else factor


def _llama_shape(fields: Metadata, vocab_size: int, tied: bool) -> LlamaConfig:
    shared = _shared(fields, vocab_size, tied)
    head_dim = fields.whole("attention.key_length", shared["width"] // shared["heads"])
    if (factor := _rotary_factor(fields, head_dim)) != 1.0:
        raise PonderTTTError(f"scaled rotary positions (factor {factor}) are not supported in this family")
    return LlamaConfig(
        **shared,
        kv_heads=fields.whole("attention.head_count_kv", shared["heads"]),
        head_dim=head_dim,
        rope_base=fields.number("rope.freq_base", 10_000.0),
        norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
    )


def _restore_llama(config: LlamaConfig, name: str, values: np.ndarray) -> np.ndarray:
    """Restore the order of rotary pairs in queries and keys.

    For this family llama.cpp rotates neighbours (2i, 2i + 1), and this package rotates halves (i, i + H/2), so the
    converter interleaved the rows of each head.
    """
    heads = {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return values
    pairs = values.reshape(heads, len(values) // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _gpt2_shape(fields: Metadata, vocab_size: int, tied: bool) -> GPT2Config:
    norm_eps = fields.number("attention.layer_norm_epsilon")
    return GPT2Config(**_shared(fields, vocab_size, tied), norm_eps=norm_eps)


def _gemma3_shape(fields: Metadata, vocab_size: int, tied: bool) -> Gemma3Config:
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if cap := fields.number(key, 0.0, or_zero=True):
            raise PonderTTTError(f"{key} is {cap}; capped logits are not supported")
    shared, head_dim = _shared(fields, vocab_size, tied), fields.whole("attention.key_length")
    return Gemma3Config(
        **shared,
        kv_heads=fields.whole("attention.head_count_kv"),
        head_dim=head_dim,
        norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        # Not in the file: the largest model (62 blocks) divides by the width of a head of the residual stream.
        query_scalar=shared["width"] // shared["heads"] if shared["layers"] == 62 else head_dim,
        window=fields.whole("attention.sliding_window"),
        local_rope_base=fields.number("rope.freq_base_swa", 10_000.0),
        global_rope_base=fields.number("rope.freq_base", 1_000_000.0),
        global_rope_factor=_rotary_factor(fields, head_dim),
        global_every=fields.whole("attention.sliding_window_pattern", 6),
    )


def _restore_gemma3(config: Gemma3Config, name: str, values: np.ndarray) -> np.ndarray:
    """Subtract 1 from norms: a Hugging Face checkpoint holds their distance from 1, a GGUF file the norms."""
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
