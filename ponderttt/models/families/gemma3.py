"""The Gemma 3 text models (Gemma Team 2025, arXiv:2503.19786).

Five blocks with a sliding window to one that sees everything, each kind with its own rotary positions; queries and keys
are normed; attention and MLP are normed before and after; GeGLU; the embedding is scaled by the root of the width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ponderttt.models.families.family import Cosines, Part, Places, Shape, Weights
from ponderttt.models.families.norms import offset_rms_norm
from ponderttt.models.rotary import rotary_angles, rotate

#: Kinds of block.
LOCAL, GLOBAL = 0, 1


@dataclass(frozen=True)
class Gemma3Config(Shape):
    """The shape of a Gemma 3 text model; see :class:`~ponderttt.models.families.family.Shape`."""

    family: ClassVar[str] = "gemma3"

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    norm_eps: float
    max_context: int
    #: Queries are divided by the root of this.
    query_scalar: int
    #: Positions that a local block sees, the query's own included.
    window: int
    local_rope_base: float
    global_rope_base: float
    #: Positions of global blocks are divided by this.
    global_rope_factor: float = 1.0
    #: Every so many blocks the last one is global.
    global_every: int = 6
    bos_id: int | None = 2
    tied: bool = True

    @property
    def query_scale(self) -> float:
        """What queries are multiplied by before they meet keys."""
        return self.query_scalar**-0.5


BLOCK = "model.layers.{}."
OUTER: Mapping[str, str] = {
    "embedding": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "unembedding": "lm_head.weight",
}
TRANSPOSED: frozenset[str] = frozenset()
UNIT_NORM = 0.0


def block_shapes(config: Gemma3Config) -> dict[str, tuple[int, ...]]:
    """Shapes of one block's parameters."""
    c = config
    return {
        "attention_norm": (c.width,),
        "query_key_value": ((c.heads + 2 * c.kv_heads) * c.head_dim, c.width),
        "query_norm": (c.head_dim,),
        "key_norm": (c.head_dim,),
        "attention_out": (c.width, c.heads * c.head_dim),
        "after_attention_norm": (c.width,),
        "mlp_norm": (c.width,),
        "gate_up": (2 * c.mlp_width, c.width),
        "mlp_down": (c.width, c.mlp_width),
        "after_mlp_norm": (c.width,),
    }


def outer_shapes(config: Gemma3Config) -> dict[str, tuple[int, ...]]:
    """Shapes of the embedding, the final norm and, where it is not tied, the unembedding."""
    matrix = (config.vocab_size, config.width)
    shapes: dict[str, tuple[int, ...]] = {"embedding": matrix, "final_norm": (config.width,)}
    return shapes if config.tied else {**shapes, "unembedding": matrix}


def parts(config: Gemma3Config) -> dict[str, tuple[Part, ...]]:
    """Tensors of one block."""
    query, key, width = config.heads * config.head_dim, config.kv_heads * config.head_dim, config.width
    return {
        "attention_norm": (Part("input_layernorm.weight", width),),
        "query_key_value": (
            Part("self_attn.q_proj.weight", query),
            Part("self_attn.k_proj.weight", key),
            Part("self_attn.v_proj.weight", key),
        ),
        "query_norm": (Part("self_attn.q_norm.weight", config.head_dim),),
        "key_norm": (Part("self_attn.k_norm.weight", config.head_dim),),
        "attention_out": (Part("self_attn.o_proj.weight", width),),
        "after_attention_norm": (Part("post_attention_layernorm.weight", width),),
        "mlp_norm": (Part("pre_feedforward_layernorm.weight", width),),
        "gate_up": (
            Part("mlp.gate_proj.weight", config.mlp_width),
            Part("mlp.up_proj.weight", config.mlp_width),
        ),
        "mlp_down": (Part("mlp.down_proj.weight", width),),
        "after_mlp_norm": (Part("post_feedforward_layernorm.weight", width),),
    }


def kinds(config: Gemma3Config) -> tuple[int, ...]:
    """Local, but for every sixth."""
    return tuple(GLOBAL if (i + 1) % config.global_every == 0 else LOCAL for i in range(config.layers))


def places(config: Gemma3Config, positions: Int[Array, " T"]) -> Places:
    """Rotary angles and windows of both kinds."""
    local = rotary_angles(positions, config.head_dim, config.local_rope_base)
    everywhere = rotary_angles(positions, config.head_dim, config.global_rope_base, config.global_rope_factor)
    cosine, sine = (jnp.stack(both) for both in zip(local, everywhere, strict=True))
    return Places((cosine, sine), jnp.asarray([config.window, jnp.iinfo(jnp.int32).max]))


def embed(
    config: Gemma3Config, outer: Weights, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Rows of the embedding times the root of the width, which is rounded to the compute dtype as well."""
    rows = outer["embedding"][tokens]
    return rows * jnp.asarray(config.width**0.5, rows.dtype)


def heads(
    config: Gemma3Config, block: Weights, hidden: Float[Array, "T D"], angles: Cosines | None
) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"], Float[Array, "T K H"]]:
    """Queries, keys and values of the normed residual stream; queries and keys normed once more."""
    assert angles is not None
    normed = offset_rms_norm(hidden, block["attention_norm"], config.norm_eps)
    fused = jnp.einsum("TD,FD->TF", normed, block["query_key_value"])
    grouped = fused.reshape(len(hidden), config.heads + 2 * config.kv_heads, config.head_dim)
    query, key, value = jnp.split(grouped, [config.heads, config.heads + config.kv_heads], axis=1)
    query = offset_rms_norm(query, block["query_norm"], config.norm_eps)
    key = offset_rms_norm(key, block["key_norm"], config.norm_eps)
    return rotate(query, angles), rotate(key, angles), value


def add_attention(
    config: Gemma3Config, block: Weights, hidden: Float[Array, "T D"], read: Float[Array, "T N H"]
) -> Float[Array, "T D"]:
    """Project what the heads read, and norm it."""
    projected = jnp.einsum("TF,DF->TD", read.reshape(len(hidden), -1), block["attention_out"])
    return hidden + offset_rms_norm(projected, block["after_attention_norm"], config.norm_eps)


def mlp_inner(config: Gemma3Config, block: Weights, hidden: Float[Array, "T D"]) -> Float[Array, "T F"]:
    """GeGLU (Shazeer 2020, arXiv:2002.05202), its GELU by the tanh approximation."""
    normed = offset_rms_norm(hidden, block["mlp_norm"], config.norm_eps)
    gate, up = jnp.split(jnp.einsum("TD,FD->TF", normed, block["gate_up"]), 2, axis=-1)
    return jax.nn.gelu(gate, approximate=True) * up


def add_mlp(
    config: Gemma3Config, block: Weights, hidden: Float[Array, "T D"], projected: Float[Array, "T D"]
) -> Float[Array, "T D"]:
    """The sum with the normed projection."""
    return hidden + offset_rms_norm(projected, block["after_mlp_norm"], config.norm_eps)


def final_norm(config: Gemma3Config, outer: Weights, hidden: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """RMS norm."""
    return offset_rms_norm(hidden, outer["final_norm"], config.norm_eps)
