"""The Gemma 3 text models (Gemma Team 2025, arXiv:2503.19786).

Five local blocks with a sliding window, then one global block, each kind with its own rotary positions; queries and keys
are normed; attention and MLP are normed before and after; GeGLU; the embedding is scaled by the root of the width.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ponderttt.models.families import gated
from ponderttt.models.families.family import Cosines, Part, Places, Shape, Stored, Weights
from ponderttt.models.families.norms import offset_rms_norm
from ponderttt.models.quantised import rows
from ponderttt.models.rotary import rotary_angles, rotate

#: Kinds of block.
LOCAL, GLOBAL = 0, 1


@dataclass(frozen=True, kw_only=True)
class Gemma3Config(Shape):
    """The shape of a Gemma 3 text model."""

    family: ClassVar[str] = "gemma3"

    kv_heads: int
    head_dim: int
    #: Queries are divided by its square root.
    query_scalar: int
    #: Positions that a local block sees, the query's own included.
    window: int
    local_rope_base: float
    global_rope_base: float
    #: Positions of global blocks are divided by this.
    global_rope_factor: float = 1.0
    #: Period of the blocks; the last one of each period is global.
    global_every: int = 6
    bos_id: int | None = 2
    tied: bool = True

    @property
    def query_scale(self) -> float:
        """Factor of queries before the product with keys."""
        return self.query_scalar**-0.5


BLOCK, OUTER, TRANSPOSED = gated.BLOCK, gated.OUTER, gated.TRANSPOSED
outer_shapes = gated.outer_shapes
UNIT_NORM = 0.0
#: Norms of the residual stream → names in checkpoints.
_NORMS = {
    "attention_norm": "input_layernorm.weight",
    "after_attention_norm": "post_attention_layernorm.weight",
    "mlp_norm": "pre_feedforward_layernorm.weight",
    "after_mlp_norm": "post_feedforward_layernorm.weight",
}
#: Norms of a head → names in checkpoints.
_HEAD_NORMS = {"query_norm": "self_attn.q_norm.weight", "key_norm": "self_attn.k_norm.weight"}


def tensor_name(name: str) -> str | None:
    """Return the name in the text model: from 4B up, checkpoints also hold a model of images."""
    if gated.is_buffer(name) or re.match(r"(model\.)?(vision_tower|multi_modal_projector)\.", name):
        return None
    name = re.sub(r"^(model\.language_model|language_model\.model)\.", "model.", name)
    return name.removeprefix("language_model.")


def block_shapes(config: Gemma3Config) -> dict[str, tuple[int, ...]]:
    """Return shapes of one block's parameters."""
    return {
        **dict.fromkeys(_NORMS, (config.width,)),
        **dict.fromkeys(_HEAD_NORMS, (config.head_dim,)),
        **gated.projection_shapes(config),
    }


def parts(config: Gemma3Config) -> dict[str, tuple[Part, ...]]:
    """Return the tensors of one block."""
    return {
        **{name: (Part(tensor, config.width),) for name, tensor in _NORMS.items()},
        **{name: (Part(tensor, config.head_dim),) for name, tensor in _HEAD_NORMS.items()},
        **gated.projection_parts(config),
    }


def kinds(config: Gemma3Config) -> tuple[int, ...]:
    """Return the kind of each block: the last of each period is global."""
    return tuple(GLOBAL if (i + 1) % config.global_every == 0 else LOCAL for i in range(config.layers))


def places(config: Gemma3Config, positions: Int[Array, " T"]) -> Places:
    """Return rotary angles and windows of both kinds."""
    local = rotary_angles(positions, config.head_dim, config.local_rope_base)
    everywhere = rotary_angles(positions, config.head_dim, config.global_rope_base, config.global_rope_factor)
    cosine, sine = (jnp.stack(both) for both in zip(local, everywhere, strict=True))
    return Places((cosine, sine), jnp.asarray([config.window, jnp.iinfo(jnp.int32).max]))


def embed(
    config: Gemma3Config, outer: Stored, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Return rows of the embedding times the root of the width."""
    return rows(outer["embedding"], tokens).astype(jnp.float32) * config.width**0.5


def heads(
    config: Gemma3Config, block: Weights, hidden: Float[Array, "T D"], angles: Cosines | None
) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"], Float[Array, "T K H"]]:
    """Return queries, keys and values of the normed residual stream; queries and keys are normed again."""
    assert angles is not None
    normed = offset_rms_norm(hidden, block["attention_norm"], config.norm_eps)
    query, key, value = gated.project_heads(config, block, normed)
    query = offset_rms_norm(query, block["query_norm"], config.norm_eps)
    key = offset_rms_norm(key, block["key_norm"], config.norm_eps)
    return rotate(query, angles), rotate(key, angles), value


def add_attention(
    config: Gemma3Config, block: Weights, hidden: Float[Array, "T D"], read: Float[Array, "T N H"]
) -> Float[Array, "T D"]:
    """Project and norm what the heads read, and add it."""
    projected = gated.project_read(block, read)
    return hidden + offset_rms_norm(projected, block["after_attention_norm"], config.norm_eps)


def mlp_inner(config: Gemma3Config, block: Weights, hidden: Float[Array, "T D"]) -> Float[Array, "T F"]:
    """Apply GeGLU (Shazeer 2020, arXiv:2002.05202), with GELU by the tanh approximation."""
    normed = offset_rms_norm(hidden, block["mlp_norm"], config.norm_eps)
    gate, up = gated.gate_and_up(block, normed)
    return jax.nn.gelu(gate, approximate=True) * up


def add_mlp(
    config: Gemma3Config, block: Weights, hidden: Float[Array, "T D"], projected: Float[Array, "T D"]
) -> Float[Array, "T D"]:
    """Add the normed projection."""
    return hidden + offset_rms_norm(projected, block["after_mlp_norm"], config.norm_eps)


def final_norm(config: Gemma3Config, outer: Stored, hidden: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Apply RMS norm."""
    return offset_rms_norm(hidden, outer["final_norm"], config.norm_eps)
