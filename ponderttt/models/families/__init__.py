"""The families of backbones; :data:`FAMILIES` holds one module for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ponderttt.models.families import gemma3, gpt2, llama
from ponderttt.models.families.family import Family, Shape

FAMILIES: dict[str, Family] = {"llama": llama, "gpt2": gpt2, "gemma3": gemma3}
_CONFIGS: dict[str, type[Shape]] = {
    "llama": llama.LlamaConfig,
    "gpt2": gpt2.GPT2Config,
    "gemma3": gemma3.Gemma3Config,
}


def family_of(config: Shape) -> Family:
    """Return the family of a configuration."""
    return FAMILIES[config.family]


def shape_from_facts(facts: Mapping[str, Any]) -> Shape:
    """Return the configuration in the manifest of a converted model."""
    return _CONFIGS[facts["family"]](**facts["config"])


def flops_per_token(config: Shape, context: int = 0, *, unembed: bool = True) -> int:
    """Return the matrix-product FLOPs (2 per multiply-add) of one token's forward pass.

    Args:
        config: the shape.
        context: number of keys that the token attends to; with 0, attention products are not counted.
        unembed: count the projection to the vocabulary.
    """
    shapes = family_of(config).block_shapes(config).values()
    matrices = sum(math.prod(shape) for shape in shapes if len(shape) == 2)
    attention = 2 * config.heads * config.head_dim * context
    vocabulary = config.vocab_size * config.width if unembed else 0
    return 2 * (config.layers * (matrices + attention) + vocabulary)


def reading_flops(config: Shape, length: int) -> int:
    """Return the matrix-product FLOPs of the blocks for a text of ``length`` tokens, each limited to its block's window."""
    family = family_of(config)
    seen = np.arange(1, length + 1)
    windows = family.places(config, jnp.zeros(1, jnp.int32)).window
    limits = [length if windows is None else int(windows[kind]) for kind in family.kinds(config)]
    keys = sum(int(np.minimum(seen, limit).sum()) for limit in limits)
    # Queries times keys, and weights times values.
    attention = 2 * 2 * config.heads * config.head_dim * keys
    return length * flops_per_token(config, unembed=False) + attention
