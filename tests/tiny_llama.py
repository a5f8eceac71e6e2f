"""The shape of the tiny random models that tests share."""

from __future__ import annotations

import dataclasses
from typing import Any

from ponderttt.models.families.llama import LlamaConfig

_TWO_BLOCKS = LlamaConfig(
    vocab_size=64,
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_width=48,
    rope_base=1e4,
    norm_eps=1e-5,
    max_context=512,
    tied=True,
)


def tiny_llama(**changes: Any) -> LlamaConfig:
    """Two blocks of width 32 with grouped heads; ``changes`` are fields that a test wants otherwise."""
    return dataclasses.replace(_TWO_BLOCKS, **changes)
