"""The GPT-2 family (Radford et al. 2019): learned positions, layer norm, biases, tied embeddings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ponderttt.models.families.family import Cosines, Part, Places, Shape, Stored, Weights
from ponderttt.models.families.norms import layer_norm
from ponderttt.models.projection import project
from ponderttt.models.quantised import rows


@dataclass(frozen=True, kw_only=True)
class GPT2Config(Shape):
    """The shape of a GPT-2 model; ``max_context`` is the number of rows of its position embedding."""

    family: ClassVar[str] = "gpt2"

    tied: bool = True

    @property
    def kv_heads(self) -> int:
        """Number of key heads: one for each query head."""
        return self.heads

    @property
    def head_dim(self) -> int:
        """Size of a head, H."""
        return self.width // self.heads


BLOCK = "transformer.h.{}."
OUTER: Mapping[str, str] = {
    "embedding": "transformer.wte.weight",
    "positions": "transformer.wpe.weight",
    "final_norm": "transformer.ln_f.weight",
    "final_norm_bias": "transformer.ln_f.bias",
    "unembedding": "lm_head.weight",
}
#: GPT-2's linear layers are one-dimensional convolutions, whose weights are [in, out].
TRANSPOSED: frozenset[str] = frozenset({"query_key_value", "attention_out", "mlp_up", "mlp_down"})
UNIT_NORM = 1.0


def tensor_name(name: str) -> str | None:
    """Add the name of the body, which some checkpoints leave out; causal masks are not part of the model."""
    if re.fullmatch(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias", name):
        return None
    return f"transformer.{name}" if re.match(r"(wte|wpe|ln_f|h)\.", name) else name


def block_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Return shapes of one block's parameters."""
    width, inner = config.width, config.mlp_width
    return {
        "attention_norm": (width,),
        "attention_norm_bias": (width,),
        "query_key_value": (3 * width, width),
        "query_key_value_bias": (3 * width,),
        "attention_out": (width, width),
        "attention_out_bias": (width,),
        "mlp_norm": (width,),
        "mlp_norm_bias": (width,),
        "mlp_up": (inner, width),
        "mlp_up_bias": (inner,),
        "mlp_down": (width, inner),
        "mlp_down_bias": (width,),
    }


def outer_shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Return shapes of both embeddings, the final norm and, if it is not tied, the unembedding."""
    matrix = (config.vocab_size, config.width)
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": matrix,
        "positions": (config.max_context, config.width),
        "final_norm": (config.width,),
        "final_norm_bias": (config.width,),
    }
    return shapes if config.tied else {**shapes, "unembedding": matrix}


def parts(config: GPT2Config) -> dict[str, tuple[Part, ...]]:
    """Return the tensors of one block; queries, keys and values are one tensor in the file too."""
    names = {
        "attention_norm": "ln_1.weight",
        "attention_norm_bias": "ln_1.bias",
        "query_key_value": "attn.c_attn.weight",
        "query_key_value_bias": "attn.c_attn.bias",
        "attention_out": "attn.c_proj.weight",
        "attention_out_bias": "attn.c_proj.bias",
        "mlp_norm": "ln_2.weight",
        "mlp_norm_bias": "ln_2.bias",
        "mlp_up": "mlp.c_fc.weight",
        "mlp_up_bias": "mlp.c_fc.bias",
        "mlp_down": "mlp.c_proj.weight",
        "mlp_down_bias": "mlp.c_proj.bias",
    }
    return {name: (Part(names[name], shape[0]),) for name, shape in block_shapes(config).items()}


def kinds(config: GPT2Config) -> tuple[int, ...]:
    """Return one kind for all blocks."""
    return (0,) * config.layers


def places(config: GPT2Config, positions: Int[Array, " T"]) -> Places:
    """Return nothing: positions are part of the embedding."""
    return Places(None, None)


def embed(
    config: GPT2Config, outer: Stored, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Return the sum of rows of the embedding and of the position embedding."""
    found = rows(outer["embedding"], tokens).astype(jnp.float32)
    return found + outer["positions"][positions]


def heads(
    config: GPT2Config, block: Weights, hidden: Float[Array, "T D"], angles: Cosines | None
) -> tuple[Float[Array, "T N H"], Float[Array, "T N H"], Float[Array, "T N H"]]:
    """Return queries, keys and values of the normed residual stream."""
    normed = layer_norm(hidden, block["attention_norm"], block["attention_norm_bias"], config.norm_eps)
    fused = project(normed, block["query_key_value"]) + block["query_key_value_bias"]
    query, key, value = jnp.split(fused.reshape(len(hidden), 3 * config.heads, config.head_dim), 3, axis=1)
    return query, key, value


def add_attention(
    config: GPT2Config, block: Weights, hidden: Float[Array, "T D"], read: Float[Array, "T N H"]
) -> Float[Array, "T D"]:
    """Project what the heads read, and add it."""
    projected = project(read.reshape(len(hidden), -1), block["attention_out"])
    return hidden + projected + block["attention_out_bias"]


def mlp_inner(config: GPT2Config, block: Weights, hidden: Float[Array, "T D"]) -> Float[Array, "T F"]:
    """Apply GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415) by the tanh approximation of the original GPT-2."""
    normed = layer_norm(hidden, block["mlp_norm"], block["mlp_norm_bias"], config.norm_eps)
    up = project(normed, block["mlp_up"]) + block["mlp_up_bias"]
    return jax.nn.gelu(up, approximate=True)


def add_mlp(
    config: GPT2Config, block: Weights, hidden: Float[Array, "T D"], projected: Float[Array, "T D"]
) -> Float[Array, "T D"]:
    """Add the projection and its bias."""
    return hidden + projected + block["mlp_down_bias"]


def final_norm(config: GPT2Config, outer: Stored, hidden: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Apply layer norm."""
    return layer_norm(hidden, outer["final_norm"], outer["final_norm_bias"], config.norm_eps)
