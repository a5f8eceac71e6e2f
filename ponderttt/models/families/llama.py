"""The Llama family (Touvron et al. 2023, arXiv:2302.13971): rotary positions, RMS norm, gated MLP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ponderttt.models.families import gated
from ponderttt.models.families.family import Cosines, Part, Places, Shape, Stored, Weights
from ponderttt.models.families.norms import rms_norm
from ponderttt.models.quantised import rows
from ponderttt.models.rotary import rotary_angles, rotate


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(Shape):
    """The shape of a Llama-family model."""

    family: ClassVar[str] = "llama"

    kv_heads: int
    head_dim: int
    #: Base of the rotary position embedding.
    rope_base: float


BLOCK, OUTER, TRANSPOSED = gated.BLOCK, gated.OUTER, gated.TRANSPOSED
outer_shapes = gated.outer_shapes
UNIT_NORM = 1.0


def tensor_name(name: str) -> str | None:
    """Return the name as it is, but for buffers."""
    return None if gated.is_buffer(name) else name


def block_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Return shapes of one block's parameters."""
    matrices = gated.projection_shapes(config)
    # In the order of checkpoints, in which random weights are drawn too.
    order = ("attention_norm", "query_key_value", "attention_out", "mlp_norm", "gate_up", "mlp_down")
    return {name: matrices.get(name, (config.width,)) for name in order}


def parts(config: LlamaConfig) -> dict[str, tuple[Part, ...]]:
    """Return the tensors of one block."""
    return {
        "attention_norm": (Part("input_layernorm.weight", config.width),),
        "mlp_norm": (Part("post_attention_layernorm.weight", config.width),),
        **gated.projection_parts(config),
    }


def kinds(config: LlamaConfig) -> tuple[int, ...]:
    """Return one kind for all blocks."""
    return (0,) * config.layers


def places(config: LlamaConfig, positions: Int[Array, " T"]) -> Places:
    """Return rotary angles."""
    cosine, sine = rotary_angles(positions, config.head_dim, config.rope_base)
    return Places((cosine[None], sine[None]), None)


def embed(
    config: LlamaConfig, outer: Stored, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Return rows of the embedding."""
    return rows(outer["embedding"], tokens).astype(jnp.float32)


def heads(
    config: LlamaConfig, block: Weights, hidden: Float[Array, "T D"], angles: Cosines | None
) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"], Float[Array, "T K H"]]:
    """Return queries, keys and values of the normed residual stream."""
    assert angles is not None
    normed = rms_norm(hidden, block["attention_norm"], config.norm_eps)
    query, key, value = gated.project_heads(config, block, normed)
    return rotate(query, angles), rotate(key, angles), value


def add_attention(
    config: LlamaConfig, block: Weights, hidden: Float[Array, "T D"], read: Float[Array, "T N H"]
) -> Float[Array, "T D"]:
    """Project what the heads read, and add it."""
    return hidden + gated.project_read(block, read)


def mlp_inner(config: LlamaConfig, block: Weights, hidden: Float[Array, "T D"]) -> Float[Array, "T F"]:
    """Apply SwiGLU (Shazeer 2020, arXiv:2002.05202)."""
    normed = rms_norm(hidden, block["mlp_norm"], config.norm_eps)
    gate, up = gated.gate_and_up(block, normed)
    return jax.nn.silu(gate) * up


def add_mlp(
    config: LlamaConfig, block: Weights, hidden: Float[Array, "T D"], projected: Float[Array, "T D"]
) -> Float[Array, "T D"]:
    """Add the projection."""
    return hidden + projected


def final_norm(config: LlamaConfig, outer: Stored, hidden: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Apply RMS norm."""
    return rms_norm(hidden, outer["final_norm"], config.norm_eps)
