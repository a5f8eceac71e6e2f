"""Parts that Llama and Gemma share: fused projections of grouped queries and of a gated MLP, and names of tensors."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from ponderttt.models.families.family import Part, Shape, Weights
from ponderttt.models.projection import project

BLOCK = "model.layers.{}."
OUTER: Mapping[str, str] = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "unembedding": "lm_head.weight",
}
TRANSPOSED: frozenset[str] = frozenset()


def is_buffer(name: str) -> bool:
    """True for frequencies of rotary positions, which older checkpoints hold and the configuration implies."""
    return name.endswith("rotary_emb.inv_freq")


def projection_shapes(config: Shape) -> dict[str, tuple[int, ...]]:
    """Return shapes of one block's matrices."""
    c = config
    return {
        "query_key_value": ((c.heads + 2 * c.kv_heads) * c.head_dim, c.width),
        "attention_out": (c.width, c.heads * c.head_dim),
        "gate_up": (2 * c.mlp_width, c.width),
        "mlp_down": (c.width, c.mlp_width),
    }


def outer_shapes(config: Shape) -> dict[str, tuple[int, ...]]:
    """Return shapes of the embedding, the final norm and, if it is not tied, the unembedding."""
    matrix = (config.vocab_size, config.width)
    shapes: dict[str, tuple[int, ...]] = {"embedding": matrix, "final_norm": (config.width,)}
    return shapes if config.tied else {**shapes, "unembedding": matrix}


def projection_parts(config: Shape) -> dict[str, tuple[Part, ...]]:
    """Return the tensors of one block's matrices."""
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "query_key_value": (
            Part("self_attn.q_proj.weight", query),
            Part("self_attn.k_proj.weight", key),
            Part("self_attn.v_proj.weight", key),
        ),
        "attention_out": (Part("self_attn.o_proj.weight", config.width),),
        "gate_up": (
            Part("mlp.gate_proj.weight", config.mlp_width),
            Part("mlp.up_proj.weight", config.mlp_width),
        ),
        "mlp_down": (Part("mlp.down_proj.weight", config.width),),
    }


def project_heads(
    config: Shape, block: Weights, normed: Float[Array, "T D"]
) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"], Float[Array, "T K H"]]:
    """Return queries, keys and values, without positions."""
    fused = project(normed, block["query_key_value"])
    grouped = fused.reshape(len(normed), config.heads + 2 * config.kv_heads, config.head_dim)
    query, key, value = jnp.split(grouped, [config.heads, config.heads + config.kv_heads], axis=1)
    return query, key, value


def project_read(block: Weights, read: Float[Array, "T N H"]) -> Float[Array, "T D"]:
    """Project what the heads read to the width of the residual stream."""
    return project(read.reshape(len(read), -1), block["attention_out"])


def gate_and_up(
    block: Weights, normed: Float[Array, "T D"]
) -> tuple[Float[Array, "T F"], Float[Array, "T F"]]:
    """Return both halves of the gated MLP's first projection."""
    gate, up = jnp.split(project(normed, block["gate_up"]), 2, axis=-1)
    return gate, up
