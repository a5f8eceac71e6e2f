"""Convert the ``config.json`` of a Hugging Face folder to the shape of a model, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ponderttt.errors import PonderTTTError
from ponderttt.models.families.family import Shape
from ponderttt.models.families.gemma3 import Gemma3Config
from ponderttt.models.families.gpt2 import GPT2Config
from ponderttt.models.families.llama import LlamaConfig

CONFIG, GENERATION = "config.json", "generation_config.json"
#: ``model_type`` → family.
FAMILY_OF_TYPE = {"llama": "llama", "gpt2": "gpt2", "gemma3_text": "gemma3", "gemma3": "gemma3"}
#: Defaults of keys that a file leaves out, as in transformers (LlamaConfig, GPT2Config, Gemma3TextConfig). Published files of
#: Gemma 3 4B and up hold only what differs from them.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        "vocab_size": 32_000,
        "hidden_size": 4_096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2_048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
    },
    "gpt2": {
        "vocab_size": 50_257,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    "gemma3": {
        "vocab_size": 262_208,
        "hidden_size": 2_304,
        "intermediate_size": 9_216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4_096,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "bos_token_id": 2,
        "tie_word_embeddings": True,
    },
}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model folder.

    Raises:
        PonderTTTError: a missing file, or one that is not a JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PonderTTTError(f"{path}: missing; fetch the model again") from None
    except (ValueError, UnicodeDecodeError):
        raise PonderTTTError(f"{path}: not readable as JSON; fetch the model again") from None
    if not isinstance(found, dict):
        raise PonderTTTError(f"{path}: expected a JSON object; fetch the model again")
    return found


def read_shape(folder: Path, family: str | None = None) -> Shape:
    """Return the shape that a folder's config.json declares; keys that it leaves out have transformers' defaults.

    Args:
        folder: folder of the model.
        family: the expected family; any by default.

    Raises:
        PonderTTTError: another architecture, or a feature that is not supported.
    """
    path = folder / CONFIG
    found = read_json(path)
    kind = found.get("model_type")
    if kind not in FAMILY_OF_TYPE:
        raise PonderTTTError(f"{path}: holds a {kind} model; known: {', '.join(FAMILY_OF_TYPE)}")
    if family not in (None, FAMILY_OF_TYPE[kind]):
        raise PonderTTTError(f"{path}: holds a {kind} model; family {family} expects {family}")
    name = FAMILY_OF_TYPE[kind]
    text = found.get("text_config") or found
    if not isinstance(text, dict):
        raise PonderTTTError(f"{path}: text_config is not a JSON object; fetch the model again")
    try:
        shape = _READERS[name]({**_DEFAULTS[name], **text})
    except ValueError as error:
        raise PonderTTTError(f"{path}: {error}") from None
    return shape


def read_ends(folder: Path) -> frozenset[int]:
    """Return the tokens that end a text, from a folder's config.json and generation_config.json.

    Raises:
        PonderTTTError: a value that is not a token id.
    """
    found: set[int] = set()
    for name in (CONFIG, GENERATION):
        path = folder / name
        if name == GENERATION and not path.exists():
            continue
        stated = read_json(path)
        text = stated.get("text_config")
        for settings in (stated, text if isinstance(text, dict) else {}):
            ends = settings.get("eos_token_id")
            ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
            if not all(type(end) is int and end >= 0 for end in ends):
                raise PonderTTTError(
                    f"{path}: eos_token_id {ends} is not a list of tokens; fetch the model again"
                )
            found |= set(ends)
    return frozenset(found)


def shape_json(config: Shape, ends: Collection[int] = ()) -> dict[str, Any]:
    """Return a config.json from which transformers builds the same model; ``ends`` are tokens that end a text."""
    stated = {"eos_token_id": sorted(ends)} if ends else {}
    return {**_WRITERS[config.family](config), "dtype": "float32", **stated}


def _expect(found: Mapping[str, Any], key: str, default: Any, *values: Any) -> None:
    if (value := found.get(key, default)) not in values:
        raise ValueError(f"{key} {value} is not supported, only {' or '.join(map(str, values))}")


#: Names here → keys that Llama and Gemma 3 share.
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


def _named(names: Mapping[str, str], found: Mapping[str, Any], **unsaid: Any) -> dict[str, Any]:
    """Return values of ``found`` under the names used here; ``unsaid`` holds defaults of absent or null ones."""
    values: dict[str, Any] = {}
    for ours, theirs in names.items():
        value = found.get(theirs)
        value = unsaid.get(ours) if value is None else value
        if ours == "norm_eps":
            values[ours] = _number(theirs, value)
        else:
            values[ours] = bool(value) if ours == "tied" else _count(theirs, value)
    return values


def _count(key: str, value: Any) -> int:
    # Some files write whole numbers as 168.0.
    if type(value) not in (int, float) or not 1 <= value < float("inf") or value != int(value):
        raise ValueError(f"{key} must be a whole number of at least 1, got {value!r}")
    return int(value)


def _number(key: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(f"{key} must be a number greater than 0, got {value!r}")
    return float(value)


def _written(names: Mapping[str, str], config: Shape) -> dict[str, Any]:
    return {theirs: getattr(config, ours) for ours, theirs in names.items()}


def _rope_kind(rope: Mapping[str, Any], *known: str) -> str:
    """Return how rotary positions are scaled; the key of older files is ``type``."""
    _expect(rope, "partial_rotary_factor", None, None, 1)
    kind: str = rope.get("rope_type", rope.get("type", "default"))
    if kind not in known:
        raise ValueError(
            f"scaled rotary positions of type {kind} are not supported, only {' or '.join(known)}"
        )
    return kind


def _read_llama(found: Mapping[str, Any]) -> LlamaConfig:
    _expect(found, "hidden_act", "silu", "silu")
    rope = {**(found.get("rope_parameters") or {}), **(found.get("rope_scaling") or {})}
    _expect(found, "partial_rotary_factor", None, None, 1)
    _rope_kind(rope, "default")
    width, heads = (_count(key, found[key]) for key in ("hidden_size", "num_attention_heads"))
    values = _named(_GATED, found, kv_heads=heads, head_dim=width // heads)
    rope_base = found.get("rope_theta") or rope.get("rope_theta") or 10_000.0
    return LlamaConfig(**values, rope_base=_number("rope_theta", rope_base))


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
    width, heads = (_count(key, found[key]) for key in ("n_embd", "n_head"))
    if width % heads:
        raise ValueError(f"n_embd must be a multiple of n_head {heads}, got {width}")
    context = found.get("n_ctx") or 1_024
    return GPT2Config(**_named(_GPT2, found, mlp_width=4 * width, max_context=context))


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
    if found.get("use_bidirectional_attention"):
        raise ValueError("use_bidirectional_attention is not supported, only causal attention")
    local, everywhere = _gemma3_rope(found)
    _rope_kind(local, "default")
    scaled = _rope_kind(everywhere, "default", "linear") == "linear"
    return Gemma3Config(
        **_named(_GATED, found),
        query_scalar=_count("query_pre_attn_scalar", found["query_pre_attn_scalar"]),
        window=_count("sliding_window", found["sliding_window"]),
        local_rope_base=_number("rope_theta of sliding attention", local["rope_theta"]),
        global_rope_base=_number("rope_theta", everywhere["rope_theta"]),
        global_rope_factor=_number("factor of rope_scaling", everywhere.get("factor")) if scaled else 1.0,
        global_every=_global_every(found),
        bos_id=found["bos_token_id"],
    )


def _global_every(found: Mapping[str, Any]) -> int:
    """Return the period of global blocks: one in so many sees everything."""
    kinds = found.get("layer_types")
    every = found.get("sliding_window_pattern") or found.get("_sliding_window_pattern")
    if every is None:
        every = kinds.index("full_attention") + 1 if kinds and "full_attention" in kinds else 6
    every = _count("sliding_window_pattern", every)
    if kinds is not None and kinds != _layer_types(found["num_hidden_layers"], every):
        raise ValueError(f"layer_types is not a regular pattern of one full attention in {every}")
    return every


def _gemma3_rope(found: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return rotary settings of local and of global blocks, from the keys of older or newer transformers."""
    newer = found.get("rope_parameters") or {}
    return (
        {"rope_theta": found["rope_local_base_freq"], **(newer.get("sliding_attention") or {})},
        {
            "rope_theta": found["rope_theta"],
            **(newer.get("full_attention") or {}),
            **(found.get("rope_scaling") or {}),
        },
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
