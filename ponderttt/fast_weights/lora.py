"""LoRA on the final hidden state, adapted by next-token gradient steps on scored chunks.

Hu et al. 2021, arXiv:2106.09685: ``read(h) = h + (h·Aᵀ)·Bᵀ`` with A [R, D] and B [D, R].  The logits of such a
read are the frozen logits plus ``(h·Aᵀ)·(E·B)ᵀ``, so that loss and gradient cost R columns of the vocabulary
projection instead of D; the frozen logits are shared with scoring.

An update can be limited to a ``token_share`` of the chunk. The other tokens are then not computed, instead of masked.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ponderttt.fast_weights.base import (
    Adaptation,
    Chunk,
    HiddenCorrection,
    Readout,
    masked_mean,
)
from ponderttt.fast_weights.gradient_steps import Descent, begin, gradient_steps, opposite
from ponderttt.models.losses import corrected_cross_entropy, vocabulary_product
from ponderttt.settings.fast_weights import LoRAConfig


class LoRAMatrices(NamedTuple):
    """The factors of the low-rank product."""

    down: Float[Array, "R D"]
    up: Float[Array, "D R"]


class LoRA(HiddenCorrection):
    """Rank-R LoRA whose start (A, B) and inner rates are slow weights; B = 0 before training."""

    steps_compose = True

    def __init__(self, width: int, config: LoRAConfig, *, rngs: nnx.Rngs) -> None:
        """Initialise for hidden states of ``width`` D."""
        self.config = config
        scale = width**-0.5
        self.down = nnx.Param(scale * jax.random.normal(rngs.params(), (config.rank, width)))
        self.up = nnx.Param(jnp.zeros((width, config.rank)))
        # Trained in log space, so that rates stay positive; one for each matrix.
        self.log_rate = nnx.Param(jnp.full(2, math.log(config.inner_rate)))

    def reset(self) -> Descent:
        """Return the learned start, with a fresh optimiser state."""
        return begin(LoRAMatrices(self.down[...], self.up[...]))

    def correction(self, fast: Descent, hidden: Float[Array, "T D"]) -> Float[Array, "T R"]:
        """Return ``h·Aᵀ``."""
        return jnp.einsum("TD,RD->TR", hidden, fast.matrices.down)

    def basis(self, fast: Descent) -> Float[Array, "D R"]:
        """Return B."""
        return fast.matrices.up

    def adapt(self, fast: Descent, chunk: Chunk, readout: Readout, steps: int) -> Adaptation:
        """Make ``steps`` Adam steps on the mean next-token loss of the chosen tokens."""
        chosen = self.chosen_tokens(chunk)
        hidden, targets, mask = chunk.hidden, chunk.targets, chunk.mask
        if chosen is not None:
            hidden, targets, mask = hidden[chosen], targets[chosen], mask[chosen]
        logits = readout.rows(chunk, chosen)
        rates = LoRAMatrices(*jnp.exp(self.log_rate[...]))

        def loss(matrices: LoRAMatrices) -> Float[Array, ""]:
            correction = jnp.einsum("TD,RD->TR", hidden, matrices.down)
            basis = vocabulary_product(readout.unembedding, matrices.up)
            return masked_mean(corrected_cross_entropy(logits, correction, basis, targets), mask)

        return Adaptation(*gradient_steps(fast, loss, rates, self.config.clip_norm, steps))

    def flipped(self, before: Descent, after: Descent) -> Descent:
        """See :func:`ponderttt.fast_weights.gradient_steps.opposite`."""
        return opposite(before, after)

    def chosen_tokens(self, chunk: Chunk) -> Int[Array, " S"] | None:
        """Return the positions of the tokens that an update uses, in order; ``None`` is all of them.

        ``entropy`` selects the positions at which the frozen model is least certain, masked ones last: the tokens on
        which an update can gain most.  It also teaches the adapter to be uncertain everywhere else; ``even`` is an
        unbiased sample.
        """
        length = chunk.hidden.shape[0]
        count = max(1, round(self.config.token_share * length))
        if count == length:
            return None
        if self.config.token_choice == "even":
            return jnp.arange(count) * length // count
        _, chosen = jax.lax.top_k(jnp.where(chunk.mask, chunk.entropy, -jnp.inf), count)
        return jnp.sort(chosen)
