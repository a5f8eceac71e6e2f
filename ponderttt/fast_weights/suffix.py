"""Suffix adaptation: next-token gradient steps on the MLP down-projections W [D, F] of the backbone's last blocks.

Two targets: ``lora``, ``W + B·A`` with A [R, F] and B [D, R] (Hu et al. 2021, arXiv:2106.09685); or ``down``, a full
change of W.  Frozen weights are an argument and never change.  A read starts from the residual stream at the split
layer, runs the blocks after it and projects to the vocabulary; an update goes back through those blocks, and ends at
the first down-projection that is adapted.

Everything before the first adapted down-projection is independent of the fast weights, so it runs once for all steps of
an update. After the attention of the last block, only the positions whose loss is needed are computed.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ponderttt.errors import PonderTTTError
from ponderttt.fast_weights.base import Adaptation, Chunk, FastWeights, Readout, masked_mean
from ponderttt.fast_weights.gradient_steps import Descent, begin, gradient_steps, opposite
from ponderttt.models.blocks import after_down_projection, before_down_projection, run_block
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Place, Shape
from ponderttt.models.losses import frozen_logits, linear_cross_entropy
from ponderttt.models.suffix import SuffixWeights, suffix_places
from ponderttt.settings.fast_weights import SuffixConfig


class LowRank(NamedTuple):
    """Target ``lora``, for the L adapted blocks."""

    down: Float[Array, "L R F"]
    up: Float[Array, "L D R"]

    def project(
        self, index: int, frozen: Float[Array, "D F"], inner: Float[Array, "S F"]
    ) -> Float[Array, "S D"]:
        """Apply the down-projection of one block."""
        low = jnp.einsum("SF,RF->SR", inner, self.down[index])
        return jnp.einsum("SF,DF->SD", inner, frozen) + jnp.einsum("SR,DR->SD", low, self.up[index])


class Full(NamedTuple):
    """Target ``down``, for the L adapted blocks: the change of W is F^-½ times this, the scale of A in ``lora``."""

    # So that inner rates and learning rates have about the same effect for both targets.
    delta: Float[Array, "L D F"]

    def project(
        self, index: int, frozen: Float[Array, "D F"], inner: Float[Array, "S F"]
    ) -> Float[Array, "S D"]:
        """Apply the down-projection of one block."""
        return jnp.einsum("SF,DF->SD", inner, frozen + frozen.shape[1] ** -0.5 * self.delta[index])


class _Entered(NamedTuple):
    """A chunk up to the first adapted down-projection, independent of fast weights."""

    residual: Float[Array, "S D"]
    inner: Float[Array, "S F"]
    places: list[Place]
    #: Indices of the states that are needed; ``None`` is all of them.
    kept: Int[Array, " S"] | None


class SuffixAdapter(FastWeights):
    """Adapted down-projections whose start and inner rates are slow weights; the change is 0 before training."""

    reads = "split"
    steps_compose = True

    def __init__(self, width: int, config: SuffixConfig, shape: Shape, *, rngs: nnx.Rngs) -> None:
        """Initialise for hidden states of ``width`` D of a backbone of this ``shape``."""
        self.config, self.shape = config, shape
        layers, inner = config.blocks, shape.mlp_width
        rates = [config.inner_rate]
        if config.target == "lora":
            noise = jax.random.normal(rngs.params(), (layers, config.rank, inner))
            self.down = nnx.Param(inner**-0.5 * noise)
            self.up = nnx.Param(jnp.zeros((layers, width, config.rank)))
            # A's rate is relative to its initial scale; at the rate of B, a few steps would replace it.
            rates = [inner**-0.5 * config.inner_rate, config.inner_rate]
        else:
            self.delta = nnx.Param(jnp.zeros((layers, width, inner)))
        # Trained in log space, so that rates stay positive; one for each kind of matrix.
        self.log_rate = nnx.Param(jnp.log(jnp.asarray(rates)))

    def reset(self) -> Descent:
        """Return the learned start, with a fresh optimiser state."""
        matrices: LowRank | Full
        if self.config.target == "lora":
            matrices = LowRank(self.down[...], self.up[...])
        else:
            matrices = Full(self.delta[...])
        return begin(matrices)

    def score(self, fast: Descent, chunk: Chunk, readout: Readout) -> Float[Array, " T"]:
        """Return the negative log-likelihood of each target in nats, 0 where masked; changes nothing."""
        nll = linear_cross_entropy(self.hidden(fast, chunk, readout), readout.unembedding, chunk.targets)
        return jnp.where(chunk.mask, nll, 0.0)

    def score_positions(
        self, fast: Descent, chunk: Chunk, readout: Readout, positions: Int[Array, " S"]
    ) -> Float[Array, " S"]:
        """Return :meth:`score` of some positions of the chunk; the others are read as context."""
        hidden = self.hidden(fast, chunk, readout, positions)
        nll = linear_cross_entropy(hidden, readout.unembedding, chunk.targets[positions])
        return jnp.where(chunk.mask[positions], nll, 0.0)

    def next_token(
        self, fast: Descent, chunk: Chunk, readout: Readout, positions: Int[Array, " S"] | None = None
    ) -> Float[Array, "S V"]:
        """See :meth:`FastWeights.next_token`."""
        logits = frozen_logits(self.hidden(fast, chunk, readout, positions), readout.unembedding)
        return jax.nn.log_softmax(logits, axis=-1)

    def hidden(
        self, fast: Descent, chunk: Chunk, readout: Readout, positions: Int[Array, " S"] | None = None
    ) -> Float[Array, "S D"]:
        """Return final normed hidden states under the fast weights, at some positions or at all."""
        entered = self._enter(chunk, readout.suffix, positions)
        return self._finish(fast.matrices, entered, readout.suffix)

    def adapt(self, fast: Descent, chunk: Chunk, readout: Readout, steps: int) -> Adaptation:
        """Make ``steps`` Adam steps on the mean next-token loss of the chosen tokens."""
        chosen = self.chosen_tokens(len(chunk.targets))
        targets, mask = chunk.targets, chunk.mask
        if chosen is not None:
            targets, mask = targets[chosen], mask[chosen]
        entered = self._enter(chunk, readout.suffix, chosen)
        rates = type(fast.matrices)(*jnp.exp(self.log_rate[...]))

        def loss(matrices: LowRank | Full) -> Float[Array, ""]:
            hidden = self._finish(matrices, entered, readout.suffix)
            return masked_mean(linear_cross_entropy(hidden, readout.unembedding, targets), mask)

        return Adaptation(*gradient_steps(fast, loss, rates, self.config.clip_norm, steps))

    def flipped(self, before: Descent, after: Descent) -> Descent:
        """See :func:`ponderttt.fast_weights.gradient_steps.opposite`."""
        return opposite(before, after)

    def chosen_tokens(self, length: int) -> Int[Array, " S"] | None:
        """Return evenly spaced positions whose loss an update uses; ``None`` is all of them."""
        count = max(1, round(self.config.token_share * length))
        return None if count == length else jnp.arange(count) * length // count

    def _enter(
        self, chunk: Chunk, suffix: SuffixWeights | None, positions: Int[Array, " S"] | None
    ) -> _Entered:
        if chunk.split is None or suffix is None:
            raise ValueError("suffix adaptation needs chunk.split and readout.suffix; one of them is missing")
        plain_blocks = suffix.layers - self.config.blocks
        if plain_blocks < 0:
            raise PonderTTTError(
                f"suffix adaptation of {self.config.blocks} blocks: the model's split_layer leaves {suffix.layers} after it; "
                f"set split_layer to {self.shape.layers - self.config.blocks} or less"
            )
        hidden = chunk.split.astype(jnp.float32)
        places = suffix_places(self.shape, suffix, len(hidden))
        for index in range(plain_blocks):
            hidden = run_block(self.shape, suffix.block(index), hidden, places[index], _all_real(hidden))
        # A beginning-of-sequence token before the chunk is context only.
        before = len(hidden) - len(chunk.targets)
        kept = positions
        if before:
            kept = before + (jnp.arange(len(chunk.targets)) if positions is None else positions)
        block, place = suffix.block(plain_blocks), places[plain_blocks]
        asked = kept if self.config.blocks == 1 else None
        up_to_here = before_down_projection(self.shape, block, hidden, place, _all_real(hidden), asked)
        return _Entered(*up_to_here, places, kept)

    def _finish(
        self,
        matrices: LowRank | Full,
        entered: _Entered,
        suffix: SuffixWeights,
    ) -> Float[Array, "S D"]:
        first = suffix.layers - self.config.blocks
        block = suffix.block(first)
        projected = matrices.project(0, block["mlp_down"], entered.inner)
        hidden = after_down_projection(self.shape, block, entered.residual, projected)
        for layer in range(first + 1, suffix.layers):
            block, last = suffix.block(layer), layer == suffix.layers - 1
            residual, inner = before_down_projection(
                self.shape,
                block,
                hidden,
                entered.places[layer],
                _all_real(hidden),
                entered.kept if last else None,
            )
            projected = matrices.project(layer - first, block["mlp_down"], inner)
            hidden = after_down_projection(self.shape, block, residual, projected)
        return family_of(self.shape).final_norm(self.shape, suffix.outer, hidden)


def _all_real(hidden: Float[Array, "T D"]) -> Bool[Array, " T"]:
    # A chunk's mask is that of its targets, which do not exist yet in decoding.  Padded inputs come after all real ones,
    # so causal attention hides them from every position that counts.
    return jnp.ones(len(hidden), dtype=bool)
