"""LoRA on the final hidden state, adapted by next-token gradient steps on chunks that were already scored.

Hu et al. 2021, arXiv:2106.09685: ``read(h) = h + (h·Aᵀ)·Bᵀ`` with A [R, D] and B [D, R].  The logits of such a
read are the frozen logits plus ``(h·Aᵀ)·(E·B)ᵀ``, so that loss and gradient cost R columns of the vocabulary
projection instead of D; the frozen logits are shared with scoring.

An update may look at a ``token_share`` of the chunk only: less compute really spent, not a mask over compute that was
spent anyway.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from ponderttt.config import LoRAConfig
from ponderttt.fast_weights.base import (
    Adaptation,
    Chunk,
    HiddenCorrection,
    Readout,
    clip_by_norm,
    masked_mean,
)
from ponderttt.models.losses import corrected_cross_entropy


class LoRAMatrices(NamedTuple):
    """The low-rank product."""

    down: Float[Array, "R D"]
    up: Float[Array, "D R"]


class LoRAFast(NamedTuple):
    """The matrices and the state of their optimiser, both carried from chunk to chunk."""

    matrices: LoRAMatrices
    optimiser: optax.OptState


class LoRA(HiddenCorrection):
    """Rank-R LoRA whose start (A, B) and inner rates are slow weights; B = 0 before training."""

    def __init__(self, width: int, config: LoRAConfig, *, rngs: nnx.Rngs) -> None:
        """``width`` is D of the hidden state."""
        self.config = config
        scale = width**-0.5
        self.down = nnx.Param(scale * jax.random.normal(rngs.params(), (config.rank, width)))
        self.up = nnx.Param(jnp.zeros((width, config.rank)))
        # Trained in the log, so that a rate stays positive; one for each matrix.
        self.log_rate = nnx.Param(jnp.full(2, math.log(config.inner_rate)))

    def reset(self) -> LoRAFast:
        """The learned start, with a fresh optimiser state."""
        matrices = LoRAMatrices(self.down[...], self.up[...])
        return LoRAFast(matrices, self._optimiser().init(matrices))

    def correction(self, fast: LoRAFast, hidden: Float[Array, "T D"]) -> Float[Array, "T R"]:
        """``h·Aᵀ``."""
        return jnp.einsum("TD,RD->TR", hidden, fast.matrices.down)

    def basis(self, fast: LoRAFast) -> Float[Array, "D R"]:
        """B."""
        return fast.matrices.up

    def adapt(self, fast: LoRAFast, chunk: Chunk, readout: Readout, steps: int) -> Adaptation:
        """``steps`` Adam steps on the mean next-token loss of the chosen tokens.

        Gradients are first order: when slow weights are trained through an update, the direction of the update
        counts as a constant and its start and rate do not (Finn et al. 2017, §5.2).
        """
        chosen = self.chosen_tokens(chunk)
        hidden, targets, mask = chunk.hidden, chunk.targets, chunk.mask
        if chosen is not None:
            hidden, targets, mask = hidden[chosen], targets[chosen], mask[chosen]
        logits = readout.rows(chunk, chosen)
        optimiser = self._optimiser()
        rates = LoRAMatrices(*jnp.exp(self.log_rate[...]))

        def loss(matrices: LoRAMatrices) -> Float[Array, ""]:
            correction = jnp.einsum("TD,RD->TR", hidden, matrices.down)
            basis = jnp.einsum("VD,DR->VR", readout.unembedding, matrices.up)
            return masked_mean(corrected_cross_entropy(logits, correction, basis, targets), mask)

        def step(carry: tuple[LoRAFast, Array], _: None) -> tuple[tuple[LoRAFast, Array], Float[Array, ""]]:
            before, count = carry
            value, gradients = jax.value_and_grad(loss)(jax.lax.stop_gradient(before.matrices))
            gradients = clip_by_norm(gradients, self.config.clip_norm)
            direction, state = optimiser.update(gradients, before.optimiser)
            direction, state = jax.lax.stop_gradient((direction, state))
            moved = jax.tree.map(lambda p, r, d: p + r * d, before.matrices, rates, direction)
            return (LoRAFast(moved, state), count + 1), value

        (fast, count), losses = jax.lax.scan(step, (fast, jnp.zeros((), jnp.int32)), length=steps)
        return Adaptation(fast, losses[0], count)

    def flipped(self, before: LoRAFast, after: LoRAFast) -> LoRAFast:
        """The matrices go the other way; the moments of the optimiser are no direction and stay."""
        matrices = jax.tree.map(lambda b, a: 2 * b - a, before.matrices, after.matrices)
        return after._replace(matrices=matrices)

    def chosen_tokens(self, chunk: Chunk) -> Int[Array, " S"] | None:
        """Positions of the tokens that an update sees, in order; ``None`` is all of them.

        ``entropy`` takes the positions at which the frozen model was least certain, masked ones last.  It looks at the
        tokens that an update can gain most on, and teaches the adapter to be uncertain everywhere else; ``even`` is an
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

    def _optimiser(self) -> optax.GradientTransformation:
        # Rates are applied outside, where they are slow weights; the sign makes it a descent direction.
        return optax.chain(optax.scale_by_adam(), optax.scale(-1.0))
