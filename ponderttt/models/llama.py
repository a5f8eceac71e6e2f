"""The Llama family (Touvron et al. 2023, arXiv:2302.13971) in Flax NNX, split into ``prefix``, ``suffix``, ``unembed``.

    hidden = suffix(prefix(tokens))        prefix = embedding + blocks[:split_layer]
    logits = unembed(hidden)               suffix = blocks[split_layer:] + final norm

Blocks are stacked along a leading layer axis and run by ``lax.scan``: one compiled block, whatever the depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ponderttt.models.attention import (
    AttentionStatistics,
    causal_attention,
    each,
    observed_attention,
    rotary_angles,
    rotate,
)

#: Parameters of one block (see :func:`block_shapes`); stacks of them have a leading layer axis.
BLOCK_WEIGHTS = ("attention_norm", "query_key_value", "attention_out", "mlp_norm", "gate_up", "mlp_down")
#: Blocks after the split unless the configuration says where to split.
SUFFIX_BLOCKS = 2


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a Llama-family model.

    Attributes:
        vocab_size: rows of the embedding and of the unembedding (V); the pad id is ``vocab_size`` itself.
        layers: number of blocks.
        width: size of the hidden state (D).
        heads: query heads (N).
        kv_heads: key and value heads (K), each shared by ``heads // kv_heads`` query heads.
        head_dim: size of a head (H).
        mlp_width: inner size of the gated MLP (F).
        rope_base: base of the rotary position embedding.
        norm_eps: added to the mean square in RMS norm.
        max_context: longest input that the model was trained for, in tokens.
        tied: the unembedding is the embedding.
    """

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    rope_base: float
    norm_eps: float
    max_context: int
    tied: bool

    @property
    def pad_id(self) -> int:
        """The dedicated pad token: the next id after the vocabulary."""
        return self.vocab_size

    def flops_per_token(self, context: int = 0, *, unembed: bool = True) -> int:
        """Matrix-product FLOPs (2 per multiply-add) of one token's forward pass.

        Args:
            context: number of keys that the token attends to; 0 leaves out the attention products.
            unembed: count the projection to the vocabulary.
        """
        heads = self.heads + 2 * self.kv_heads
        projections = self.width * heads * self.head_dim + self.heads * self.head_dim * self.width
        attention = 2 * self.heads * self.head_dim * context
        block = projections + 3 * self.width * self.mlp_width + attention
        return 2 * (self.layers * block + (self.vocab_size * self.width if unembed else 0))


def block_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Shapes of one block's parameters; matrices are [out, in], fused matrices are stacked along ``out``."""
    c = config
    return {
        "attention_norm": (c.width,),
        "query_key_value": ((c.heads + 2 * c.kv_heads) * c.head_dim, c.width),
        "attention_out": (c.width, c.heads * c.head_dim),
        "mlp_norm": (c.width,),
        "gate_up": (2 * c.mlp_width, c.width),
        "mlp_down": (c.width, c.mlp_width),
    }


def rms_norm(hidden: Float[Array, "*B D"], weight: Float[Array, " D"], eps: float) -> Float[Array, "*B D"]:
    """RMS norm (Zhang & Sennrich 2019), computed in float32, returned in the dtype of ``hidden``."""
    wide = hidden.astype(jnp.float32)
    scaled = wide * lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return (scaled * weight.astype(jnp.float32)).astype(hidden.dtype)


class Block(nnx.Module):
    """Attention and gated MLP, each on the normed residual stream; holds one block or a stack of them."""

    def __init__(self, config: LlamaConfig, weights: Mapping[str, ArrayLike]) -> None:
        self.config = config
        self.attention_norm = nnx.Param(jax.device_put(weights["attention_norm"]))
        self.query_key_value = nnx.Param(jax.device_put(weights["query_key_value"]))
        self.attention_out = nnx.Param(jax.device_put(weights["attention_out"]))
        self.mlp_norm = nnx.Param(jax.device_put(weights["mlp_norm"]))
        self.gate_up = nnx.Param(jax.device_put(weights["gate_up"]))
        self.mlp_down = nnx.Param(jax.device_put(weights["mlp_down"]))

    def __call__(
        self,
        hidden: Float[Array, "T D"],
        angles: tuple[Float[Array, "T H/2"], Float[Array, "T H/2"]],
        mask: Bool[Array, " T"],
    ) -> Float[Array, "T D"]:
        """One block on one sequence; ``mask`` is False where a key must not be attended to."""
        return self._add(hidden, causal_attention(*self._heads(hidden, angles), mask))

    def observed(
        self,
        hidden: Float[Array, "T D"],
        angles: tuple[Float[Array, "T H/2"], Float[Array, "T H/2"]],
        mask: Bool[Array, " T"],
        observe: int,
    ) -> tuple[Float[Array, "T D"], AttentionStatistics]:
        """The block, and statistics [N, ``observe``] of how its last ``observe`` positions attend."""
        read, statistics = observed_attention(*self._heads(hidden, angles), mask, observe)
        return self._add(hidden, read), statistics

    def _heads(
        self, hidden: Float[Array, "T D"], angles: tuple[Float[Array, "T H/2"], Float[Array, "T H/2"]]
    ) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"], Float[Array, "T K H"]]:
        """Queries, keys and values of the normed residual stream."""
        c = self.config
        normed = rms_norm(hidden, self.attention_norm[...], c.norm_eps)
        fused = jnp.einsum("TD,FD->TF", normed, self.query_key_value[...])
        heads = fused.reshape(len(hidden), c.heads + 2 * c.kv_heads, c.head_dim)
        query, key, value = jnp.split(heads, [c.heads, c.heads + c.kv_heads], axis=1)
        return rotate(query, angles), rotate(key, angles), value

    def _add(self, hidden: Float[Array, "T D"], read: Float[Array, "T N H"]) -> Float[Array, "T D"]:
        """Add what attention read to the residual stream, then what the MLP makes of both."""
        hidden = hidden + jnp.einsum("TF,DF->TD", read.reshape(len(hidden), -1), self.attention_out[...])
        normed = rms_norm(hidden, self.mlp_norm[...], self.config.norm_eps)
        gate, up = jnp.split(jnp.einsum("TD,FD->TF", normed, self.gate_up[...]), 2, axis=-1)
        return hidden + jnp.einsum("TF,DF->TD", jax.nn.silu(gate) * up, self.mlp_down[...])


def default_split(layers: int) -> int:
    """All blocks but the last two; in a model of few blocks at least one on either side, first after the split."""
    return max(layers - SUFFIX_BLOCKS, min(1, layers - 1))


class Llama(nnx.Module):
    """A whole model; ``blocks_before`` and ``blocks_after`` are the stacks on either side of the split.

    Args:
        config: the shape.
        embedding: [V, D].
        blocks: name → stacked parameters ``[layers, ...]``, see :func:`block_shapes`.
        final_norm: [D].
        unembedding: [V, D], or ``None`` where it is the embedding.
        split_layer: number of blocks in the prefix; ``None`` is :func:`default_split`.
    """

    def __init__(
        self,
        config: LlamaConfig,
        embedding: Float[ArrayLike, "V D"],
        blocks: Mapping[str, Array | np.ndarray],
        final_norm: Float[ArrayLike, " D"],
        unembedding: Float[ArrayLike, "V D"] | None,
        split_layer: int | None = None,
    ) -> None:
        split = default_split(config.layers) if split_layer is None else split_layer
        if not 0 <= split <= config.layers:
            raise ValueError(f"split_layer is {split}; the model has {config.layers} blocks")
        self.config = config
        self.embedding = nnx.Param(jax.device_put(embedding))
        self.blocks_before = Block(config, {name: blocks[name][:split] for name in BLOCK_WEIGHTS})
        self.blocks_after = Block(config, {name: blocks[name][split:] for name in BLOCK_WEIGHTS})
        self.final_norm = nnx.Param(jax.device_put(final_norm))
        self.unembedding = None if unembedding is None else nnx.Param(jax.device_put(unembedding))

    def prefix(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Embedding and the first ``split_layer`` blocks; the residual stream in the parameters' dtype.

        Token ``pad_id`` is embedded as zeros and never attended to; positions count from 0.
        """
        real = tokens < self.config.vocab_size
        rows = self.embedding[...][jnp.where(real, tokens, 0)]
        return self._run(self.blocks_before, jnp.where(real[..., None], rows, 0), real)[0]

    def suffix(
        self,
        hidden: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None = None,
        keep_last: int | None = None,
    ) -> Float[Array, "B T D"]:
        """The remaining blocks and the final norm, float32; ``mask`` is False where ``prefix`` read padding."""
        if mask is None:
            mask = jnp.ones(hidden.shape[:2], dtype=bool)
        hidden, _ = self._run(self.blocks_after, hidden, mask)
        return self._normed(hidden if keep_last is None else hidden[:, -keep_last:])

    def observed_suffix(
        self, hidden: Float[Array, "B T D"], mask: Bool[Array, "B T"], keep_last: int
    ) -> tuple[Float[Array, "B T D"], AttentionStatistics]:
        """:meth:`suffix`, and how its blocks attend at the positions kept: statistics [L, B, N, T]."""
        hidden, statistics = self._run(self.blocks_after, hidden, mask, observe=keep_last)
        return self._normed(hidden[:, -keep_last:]), statistics

    def hidden(self, tokens: Int[Array, "B T"], keep_last: int | None = None) -> Float[Array, "B T D"]:
        """``suffix(prefix(tokens))``; only the last ``keep_last`` positions, after attention over all of them.

        Attention is causal over the whole input: to give each chunk of C tokens n preceding chunks of
        context, pass ``[B, C * (n + 1)]`` tokens and ``keep_last=C``.
        """
        return self.suffix(self.prefix(tokens), tokens < self.config.vocab_size, keep_last)

    def unembed(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Logits over the vocabulary (nats), float32; padding has no row, so it can not be predicted."""
        matrix = self.embedding if self.unembedding is None else self.unembedding
        return jnp.einsum("...D,VD->...V", hidden, matrix[...].astype(jnp.float32))

    def _normed(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return rms_norm(hidden.astype(jnp.float32), self.final_norm[...], self.config.norm_eps)

    def _run(
        self,
        stack: Block,
        hidden: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        observe: int | None = None,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Blocks one after the other; with ``observe``, how each of them attends at the last positions."""
        angles = rotary_angles(hidden.shape[1], self.config.head_dim, self.config.rope_base)
        graph, layers = nnx.split(stack)

        def step(carry: Array, layer: nnx.State) -> tuple[Array, Any]:
            block = nnx.merge(graph, layer)
            if observe is None:
                return each(lambda row, real: block(row, angles, real), carry, mask), None
            return each(lambda row, real: block.observed(row, angles, real, observe), carry, mask)

        return lax.scan(step, hidden, layers)
