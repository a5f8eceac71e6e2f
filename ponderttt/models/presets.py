"""Shapes of well-known models, for planning, speed measurements and tests without a checkpoint.

A checkpoint states its own shape.  Sources: for the Gemma 3 text models: Gemma Team 2025 (arXiv:2503.19786) and their
reference configurations; for GPT-2, Radford et al. 2019; for SmolLM2, Ben Allal et al. 2025 (arXiv:2502.02737).
"""

from __future__ import annotations

from ponderttt.errors import ConfigError, unknown
from ponderttt.models.families.family import Shape
from ponderttt.models.families.gemma3 import Gemma3Config
from ponderttt.models.families.gpt2 import GPT2Config
from ponderttt.models.families.llama import LlamaConfig


def _gpt2(layers: int, width: int, heads: int) -> GPT2Config:
    return GPT2Config(
        vocab_size=50_257,
        layers=layers,
        width=width,
        heads=heads,
        mlp_width=4 * width,
        norm_eps=1e-5,
        max_context=1_024,
    )


def _gemma3(
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    mlp_width: int,
    *,
    head_dim: int = 256,
    query_scalar: int = 256,
    multimodal: bool = True,
) -> Gemma3Config:
    """Return a shape; the two small models, for text only, have shorter contexts and windows and unscaled positions."""
    return Gemma3Config(
        vocab_size=262_208 if multimodal else 262_144,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_width=mlp_width,
        norm_eps=1e-6,
        max_context=131_072 if multimodal else 32_768,
        query_scalar=query_scalar,
        window=1_024 if multimodal else 512,
        local_rope_base=10_000.0,
        global_rope_base=1_000_000.0,
        global_rope_factor=8.0 if multimodal else 1.0,
    )


def _smollm2(
    layers: int, width: int, heads: int, kv_heads: int, mlp_width: int, rope_base: float
) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=49_152,
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=64,
        mlp_width=mlp_width,
        rope_base=rope_base,
        norm_eps=1e-5,
        max_context=8_192,
        tied=True,
    )


PRESETS: dict[str, Shape] = {
    "gpt2-125m": _gpt2(12, 768, 12),
    "gpt2-350m": _gpt2(24, 1_024, 16),
    "gpt2-1b": _gpt2(36, 1_280, 20),
    "gpt2-xl": _gpt2(48, 1_600, 25),
    "gemma3-270m": _gemma3(18, 640, 4, 1, 2_048, multimodal=False),
    "gemma3-1b": _gemma3(26, 1_152, 4, 1, 6_912, multimodal=False),
    "gemma3-4b": _gemma3(34, 2_560, 8, 4, 10_240),
    "gemma3-12b": _gemma3(48, 3_840, 16, 8, 15_360),
    "gemma3-27b": _gemma3(62, 5_376, 32, 16, 21_504, head_dim=128, query_scalar=168),
    "smollm2-135m": _smollm2(30, 576, 9, 3, 1_536, 100_000.0),
    "smollm2-360m": _smollm2(32, 960, 15, 5, 2_560, 100_000.0),
    "smollm2-1.7b": _smollm2(24, 2_048, 32, 32, 8_192, 130_000.0),
}


def preset(name: str) -> Shape:
    """Return the shape of a well-known model.

    Raises:
        ConfigError: no such preset; the message lists the known ones.
    """
    if name not in PRESETS:
        raise ConfigError(unknown("preset", name, PRESETS))
    return PRESETS[name]
