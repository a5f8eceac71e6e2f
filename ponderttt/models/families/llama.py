"""The Llama family (Touvron et al. 2023, arXiv:2302.13971): rotary positions, RMS norm, gated MLP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ponderttt.models.families.family import Cosines, Part, Places, Shape, Weights
from ponderttt.models.families.norms import rms_norm
from ponderttt.models.rotary import rotary_angles, rotate


@dataclass(frozen=True)
class LlamaConfig(Shape):
    """The shape of a Llama-family model; see :class:`~ponderttt.models.families.family.Shape`."""

    family: ClassVar[str] = "llama"

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    #: Base of the rotary position embedding.
    rope_base: float
    norm_eps: float
    max_context: int
    tied: bool


BLOCK = "model.layers.{}."
OUTER: Mapping[str, str] = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "unembedding": "lm_head.weight",
}
TRANSPOSED: frozenset[str] = frozenset()
UNIT_NORM = 1.0


def block_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of one block's parameters."""
    c = config
    return {
        "attention_norm": (c.width,),
        "query_key_value": ((c.heads + 2 * c.kv_heads) * c.head_dim, c.width),
        "attention_out": (c.width, c.heads * c.head_dim),
        "mlp_norm": (c.width,),
        "gate_up": (2 * c.mlp_width, c.width),
        "mlp_down": (c.width, c.mlp_width),
    }


def outer_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of the embedding, the final norm and, where it is not tied, the unembedding."""
    matrix = (config.vocab_size, config.width)
    shapes: dict[str, tuple[int, ...]] = {"embedding": matrix, "final_norm": (config.width,)}
    return shapes if config.tied else {**shapes, "unembedding": matrix}


def parts(config: LlamaConfig) -> dict[str, tuple[Part, ...]]:
    """Tensors of one block."""
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "attention_norm": (Part("input_layernorm.weight", config.width),),
        "query_key_value": (
            Part("self_attn.q_proj.weight", query),
            Part("self_attn.k_proj.weight", key),
            Part("self_attn.v_proj.weight", key),
        ),
        "attention_out": (Part("self_attn.o_proj.weight", config.width),),
        "mlp_norm": (Part("post_attention_layernorm.weight", config.width),),
        "gate_up": (
            Part("mlp.gate_proj.weight", config.mlp_width),
            Part("mlp.up_proj.weight", config.mlp_width),
        ),
        "mlp_down": (Part("mlp.down_proj.weight", config.width),),
    }


def kinds(config: LlamaConfig) -> tuple[int, ...]:
    """All blocks are alike."""
    return (0,) * config.layers


def places(config: LlamaConfig, positions: Int[Array, " T"]) -> Places:
    """Rotary angles."""
    cosine, sine = rotary_angles(positions, config.head_dim, config.rope_base)
    return Places((cosine[None], sine[None]), None)


def embed(
    config: LlamaConfig, outer: Weights, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Rows of the embedding."""
    return outer["embedding"][tokens]


def heads(
    config: LlamaConfig, block: Weights, hidden: Float[Array, "T D"], angles: Cosines | None
) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"], Float[Array, "T K H"]]:
    """Queries, keys and values of the normed residual stream."""
    assert angles is not None
    normed = rms_norm(hidden, block["attention_norm"], config.norm_eps)
    fused = jnp.einsum("TD,FD->TF", normed, block["query_key_value"])
    grouped = fused.reshape(len(hidden), config.heads + 2 * config.kv_heads, config.head_dim)
    query, key, value = jnp.split(grouped, [config.heads, config.heads + config.kv_heads], axis=1)
    return rotate(query, angles), rotate(key, angles), value


def add_attention(
    config: LlamaConfig, block: Weights, hidden: Float[Array, "T D"], read: Float[Array, "T N H"]
) -> Float[Array, "T D"]:
    """Project what the heads read."""
    return hidden + jnp.einsum("TF,DF->TD", read.reshape(len(hidden), -1), block["attention_out"])


def mlp_inner(config: LlamaConfig, block: Weights, hidden: Float[Array, "T D"]) -> Float[Array, "T F"]:
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""
    normed = rms_norm(hidden, block["mlp_norm"], config.norm_eps)
    gate, up = jnp.split(jnp.einsum("TD,FD->TF", normed, block["gate_up"]), 2, axis=-1)
    return jax.nn.silu(gate) * up


def add_mlp(
    config: LlamaConfig, block: Weights, hidden: Float[Array, "T D"], projected: Float[Array, "T D"]
) -> Float[Array, "T D"]:
    """A plain sum."""
    return hidden + projected


def final_norm(config: LlamaConfig, outer: Weights, hidden: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """RMS norm."""
    return rms_norm(hidden, outer["final_norm"], config.norm_eps)
