"""``config.json`` of a Hugging Face folder: to the shape of a model, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ponderttt.errors import PonderTTTError
from ponderttt.models.families.family import Shape
from ponderttt.models.families.gemma3 import Gemma3Config
from ponderttt.models.families.gpt2 import GPT2Config
from ponderttt.models.families.llama import LlamaConfig

CONFIG = "config.json"
#: ``model_type`` → family.
FAMILY_OF_TYPE = {"llama": "llama", "gpt2": "gpt2", "gemma3_text": "gemma3", "gemma3": "gemma3"}


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


def read_shape(folder: Path, family: str | None = None) -> Shape:
    """The shape that a folder's config.json declares.

    Args:
        folder: of the model.
        family: what it is expected to be; whatever it is by default.

    Raises:
        PonderTTTError: another architecture, or a feature of it that these models do not have.
    """
    path = folder / CONFIG
    found = read_json(path)
    kind = found.get("model_type")
    if kind not in FAMILY_OF_TYPE:
        raise PonderTTTError(f"{path}: holds a {kind} model; known: {', '.join(FAMILY_OF_TYPE)}")
    if family not in (None, FAMILY_OF_TYPE[kind]):
        raise PonderTTTError(f"{path}: holds a {kind} model; family {family} expects {family}")
    try:
        shape = _READERS[FAMILY_OF_TYPE[kind]](found.get("text_config", found))
    except KeyError as error:
        raise PonderTTTError(f"{path}: the key {error} is missing") from None
    except ValueError as error:
        raise PonderTTTError(f"{path}: {error}") from None
    return shape


def shape_json(config: Shape) -> dict[str, Any]:
    """The config.json of a model, with which transformers builds the same one."""
    return {**_WRITERS[config.family](config), "dtype": "float32"}


def _expect(found: Mapping[str, Any], key: str, default: Any, *values: Any) -> None:
    if (value := found.get(key, default)) not in values:
        raise ValueError(f"{key} {value} is not supported, only {' or '.join(map(str, values))}")


#: Our names of what Llama and Gemma 3 say alike → theirs.
_GATED = {
    "vocab_size": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "mlp_width": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "max_context": "max_position_embeddings",
    "tied": "tie_word_embeddings",
}
_GPT2 = {
    "vocab_size": "vocab_size",
    "layers": "n_layer",
    "width": "n_embd",
    "heads": "n_head",
    "mlp_width": "n_inner",
    "norm_eps": "layer_norm_epsilon",
    "max_context": "n_positions",
    "tied": "tie_word_embeddings",
}


def _named(names: Mapping[str, str], found: Mapping[str, Any], **missing: Any) -> dict[str, Any]:
    """Values of ``found`` under our names; ``missing`` stands for those that are absent or null."""
    values = {}
    for ours, theirs in names.items():
        value = found.get(theirs)
        if value is None:
            if ours not in missing:
                raise KeyError(theirs)
            value = missing[ours]
        values[ours] = value
    values["norm_eps"] = float(values["norm_eps"])
    return values


def _written(names: Mapping[str, str], config: Shape) -> dict[str, Any]:
    return {theirs: getattr(config, ours) for ours, theirs in names.items()}


def _read_llama(found: Mapping[str, Any]) -> LlamaConfig:
    _expect(found, "hidden_act", "silu", "silu")
    rope = found.get("rope_parameters") or found.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError("scaled rotary positions are not supported")
    heads = found["num_attention_heads"]
    values = _named(_GATED, found, kv_heads=heads, head_dim=found["hidden_size"] // heads, tied=False)
    rope_base = float(found.get("rope_theta") or rope.get("rope_theta") or 10_000.0)
    return LlamaConfig(**values, rope_base=rope_base)


def _write_llama(config: LlamaConfig) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **_written(_GATED, config),
        "rope_theta": config.rope_base,
        "hidden_act": "silu",
    }


def _read_gpt2(found: Mapping[str, Any]) -> GPT2Config:
    _expect(found, "activation_function", "gelu_new", "gelu_new")
    _expect(found, "scale_attn_weights", True, True)
    _expect(found, "scale_attn_by_inverse_layer_idx", False, False)
    width, heads = found["n_embd"], found["n_head"]
    if width % heads:
        raise ValueError(f"n_embd {width} is no multiple of n_head {heads}")
    found = {**found, "n_positions": found.get("n_positions") or found["n_ctx"]}
    return GPT2Config(**_named(_GPT2, found, mlp_width=4 * width, tied=True))


def _write_gpt2(config: GPT2Config) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **_written(_GPT2, config),
        "activation_function": "gelu_new",
    }


def _read_gemma3(found: Mapping[str, Any]) -> Gemma3Config:
    _expect(found, "hidden_activation", "gelu_pytorch_tanh", "gelu_pytorch_tanh")
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        _expect(found, key, None, None)
    local, everywhere = _gemma3_rope(found)
    kind = everywhere.get("rope_type", "default")
    if kind not in ("default", "linear") or local.get("rope_type", "default") != "default":
        raise ValueError(f"rotary positions of type {kind} are not supported")
    return Gemma3Config(
        **_named(_GATED, found, tied=True),
        query_scalar=found["query_pre_attn_scalar"],
        window=found["sliding_window"],
        local_rope_base=float(local["rope_theta"]),
        global_rope_base=float(everywhere["rope_theta"]),
        global_rope_factor=float(everywhere.get("factor", 1.0)) if kind == "linear" else 1.0,
        global_every=_global_every(found),
        bos_id=found.get("bos_token_id", 2),
    )


def _global_every(found: Mapping[str, Any]) -> int:
    """How many blocks there are to one that sees everything."""
    kinds = found.get("layer_types")
    every = found.get("sliding_window_pattern") or found.get("_sliding_window_pattern")
    if every is None:
        every = kinds.index("full_attention") + 1 if kinds and "full_attention" in kinds else 6
    if kinds is not None and kinds != _layer_types(found["num_hidden_layers"], every):
        raise ValueError(f"layer_types is no regular pattern of one full attention in {every}")
    return int(every)


def _gemma3_rope(found: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Rotary settings of local and of global blocks, as older and newer versions of transformers write them."""
    newer = found.get("rope_parameters")
    if newer:
        return newer["sliding_attention"], newer["full_attention"]
    scaling = found.get("rope_scaling") or {}
    return (
        {"rope_theta": found["rope_local_base_freq"]},
        {"rope_theta": found["rope_theta"], **scaling},
    )


def _write_gemma3(config: Gemma3Config) -> dict[str, Any]:
    everywhere: dict[str, Any] = {"rope_type": "default", "rope_theta": config.global_rope_base}
    if config.global_rope_factor != 1.0:
        everywhere |= {"rope_type": "linear", "factor": config.global_rope_factor}
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **_written(_GATED, config),
        "query_pre_attn_scalar": config.query_scalar,
        "sliding_window": config.window,
        "layer_types": _layer_types(config.layers, config.global_every),
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": config.local_rope_base},
            "full_attention": everywhere,
        },
        "bos_token_id": config.bos_id,
        "hidden_activation": "gelu_pytorch_tanh",
    }


def _layer_types(layers: int, every: int) -> list[str]:
    return ["full_attention" if (layer + 1) % every == 0 else "sliding_attention" for layer in range(layers)]


_READERS: dict[str, Callable[[Mapping[str, Any]], Shape]] = {
    "llama": _read_llama,
    "gpt2": _read_gpt2,
    "gemma3": _read_gemma3,
}
_WRITERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "llama": _write_llama,
    "gpt2": _write_gpt2,
    "gemma3": _write_gemma3,
}
