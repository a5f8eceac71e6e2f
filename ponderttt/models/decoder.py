"""A decoder-only transformer of any family in Flax NNX, split into ``prefix``, ``suffix``, ``unembed``.

    hidden = suffix(prefix(tokens))        prefix = embedding + blocks[:split_layer]
    logits = unembed(hidden)               suffix = blocks[split_layer:] + final norm

Blocks are stacked along a leading layer axis and run by ``lax.scan``, so one block is compiled at any depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ponderttt.models.attention import AttentionStatistics, each
from ponderttt.models.blocks import observed_block, run_block
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Shape, Stored, real_positions
from ponderttt.models.projection import product
from ponderttt.models.quantised import opened, opened_block

#: Default number of blocks after the split.
SUFFIX_BLOCKS = 2


def default_split(layers: int) -> int:
    """Return the number of blocks before the split: all but two; with few blocks, at least one on either side."""
    return max(layers - SUFFIX_BLOCKS, min(1, layers - 1))


def embedded(
    config: Shape,
    outer: Stored,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"] | None = None,
) -> Float[Array, "B T D"]:
    """Return the residual stream before the first block; zeros for the pad id, which has no position.

    ``positions`` are the numbers of real tokens before each one, unless they are given.
    """
    real = tokens < config.vocab_size
    if positions is None:
        positions = real_positions(real)
    rows = family_of(config).embed(config, outer, jnp.where(real, tokens, 0), positions)
    return jnp.where(real[..., None], rows, 0)


class Parameters(nnx.Module):
    """Frozen arrays by name; those of blocks are stacked along a leading layer axis."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            setattr(self, name, nnx.Param(array))

    def arrays(self) -> dict[str, Any]:
        """Return the arrays by name, quantised ones as they are stored."""
        return {name: value[...] for name, value in vars(self).items() if isinstance(value, nnx.Param)}


class Decoder(nnx.Module):
    """A whole model; ``blocks_before`` and ``blocks_after`` are the stacks on either side of the split.

    Args:
        config: the shape.
        outer: parameters outside of the blocks, see :meth:`Family.outer_shapes`.
        before: name → stacked parameters ``[split_layer, ...]``, see :meth:`Family.block_shapes`.
        after: name → those of the other blocks.
    """

    def __init__(
        self, config: Shape, outer: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
    ) -> None:
        self.config = config
        self.split_layer = next(iter(before.values())).shape[0]
        self.outer = Parameters(outer)
        self.blocks_before = Parameters(before)
        self.blocks_after = Parameters(after)

    def prefix(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Return the residual stream after ``split_layer`` blocks, float32.

        Token ``pad_id`` is embedded as zeros and never attended to.
        """
        real = tokens < self.config.vocab_size
        rows = embedded(self.config, self.outer.arrays(), tokens)
        return self._run(self.blocks_before, 0, rows, real)[0]

    def suffix(
        self,
        hidden: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        keep_last: int | None = None,
    ) -> Float[Array, "B S D"]:
        """Return the final hidden state, float32; ``mask`` is False where ``prefix`` read padding."""
        hidden, _ = self._run(self.blocks_after, self.split_layer, hidden, mask)
        return self.normed(hidden if keep_last is None else hidden[:, -keep_last:])

    def observed_suffix(
        self, hidden: Float[Array, "B T D"], mask: Bool[Array, "B T"], keep_last: int
    ) -> tuple[Float[Array, "B S D"], AttentionStatistics]:
        """Return :meth:`suffix` and statistics [L, B, N, S] of how its blocks attend at the positions kept."""
        hidden, statistics = self._run(self.blocks_after, self.split_layer, hidden, mask, observe=keep_last)
        return self.normed(hidden[:, -keep_last:]), statistics

    def hidden(self, tokens: Int[Array, "B T"], keep_last: int | None = None) -> Float[Array, "B S D"]:
        """Return ``suffix(prefix(tokens))``; only the last ``keep_last`` positions, after attention over all of them.

        Attention is causal over the whole input: to give each chunk of C tokens n preceding chunks of
        context, pass ``[B, C * (n + 1)]`` tokens and ``keep_last=C``.
        """
        return self.suffix(self.prefix(tokens), tokens < self.config.vocab_size, keep_last)

    def unembed(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Return logits over the vocabulary (nats), float32; padding has no row, so it cannot be predicted."""
        return product("...D,VD->...V", hidden, opened(self.unembedding_matrix()))

    def unembedding_matrix(self) -> Any:
        """Return the matrix [V, D] of :meth:`unembed`, as it is stored."""
        return self.outer.arrays()["embedding" if self.config.tied else "unembedding"]

    def normed(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Return the final norm of the residual stream, float32."""
        wide = hidden.astype(jnp.float32)
        return family_of(self.config).final_norm(self.config, self.outer.arrays(), wide)

    def _run(
        self,
        stack: Parameters,
        first: int,
        hidden: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        observe: int | None = None,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Run blocks in turn; with ``observe``, also return how each attends at the last positions."""
        family, blocks = family_of(self.config), stack.arrays()
        places = family.places(self.config, jnp.arange(hidden.shape[1]))
        count = next(iter(blocks.values())).shape[0]
        kinds = jnp.asarray(family.kinds(self.config)[first : first + count], jnp.int32)

        def step(carry: Array, layer: tuple[dict[str, Any], Array]) -> tuple[Array, Any]:
            stored, kind = layer
            block = opened_block(stored)
            place = places.of(kind)
            if observe is None:
                return each(
                    lambda row, real: run_block(self.config, block, row, place, real), carry, mask
                ), None
            return each(
                lambda row, real: observed_block(self.config, block, row, place, real, observe), carry, mask
            )

        # A gradient computes each block again instead of keeping all intermediate values.
        return lax.scan(jax.checkpoint(step, prevent_cse=False), hidden, (blocks, kinds))
