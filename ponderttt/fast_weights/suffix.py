"""Suffix adaptation: next-token gradient steps on the MLP down-projections W [D, F] of the backbone's last blocks.

Two targets: ``lora``, ``W + B·A`` with A [R, F] and B [D, R] (Hu et al. 2021, arXiv:2106.09685); or ``down``, a full
change of W.  Frozen weights are an argument and never change.  A read starts from the residual stream at the split
layer, runs the blocks after it and projects to the vocabulary; an update goes back through those blocks, and ends at
the first down-projection that is adapted.

Everything before the first adapted down-projection is independent of the fast weights, so it runs once for all steps of
an update. After the attention of the last block, only the positions whose loss is needed are computed.

Where a chunk attends to earlier chunks, the blocks have a cache of their own: a chunk's keys and values are those of the
fast weights that read it, and later updates do not change them. No gradient flows into them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ponderttt.errors import PonderTTTError
from ponderttt.fast_weights.base import Adaptation, Chunk, FastWeights, Readout, Scored, masked_mean
from ponderttt.fast_weights.gradient_steps import Descent, begin, gradient_steps, opposite
from ponderttt.models.attention import causal_attention
from ponderttt.models.blocks import after_attention, after_down_projection, finish_block, heads_of
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Place, Shape
from ponderttt.models.losses import frozen_logits, linear_cross_entropy
from ponderttt.models.past_attention import Past, Reach, attend
from ponderttt.models.streaming import Fresh, empty_past, turned_sinks, written
from ponderttt.models.suffix import SuffixCache, SuffixWeights, suffix_places
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


class Cached(NamedTuple):
    """Keys and values of the chunks so far, and their number."""

    past: Past
    chunks: Int[Array, ""]


class SuffixState(NamedTuple):
    """The fast weights."""

    descent: Descent
    #: None if each chunk is read alone.
    cached: Cached | None = None


class _Around(NamedTuple):
    """What the tokens of a chunk attend to; ``past`` and ``reach`` are None for the chunk itself only."""

    places: list[Place]
    #: False for keys that are hidden: a beginning-of-sequence token that is in the cache already.
    mask: Bool[Array, " S"]
    past: Past | None = None
    reach: Reach | None = None


class _Entered(NamedTuple):
    """A chunk up to the first adapted down-projection, independent of fast weights."""

    residual: Float[Array, "S D"]
    inner: Float[Array, "S F"]
    around: _Around
    #: Keys and values of the blocks so far.
    fresh: list[Fresh]
    #: Indices of the states that are needed; ``None`` is all of them.
    kept: Int[Array, " S"] | None


class SuffixAdapter(FastWeights):
    """Adapted down-projections whose start and inner rates are slow weights; the change is 0 before training."""

    reads = "split"
    steps_compose = True

    def __init__(
        self,
        width: int,
        config: SuffixConfig,
        shape: Shape,
        cache: SuffixCache | None = None,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        """Initialise for hidden states of ``width`` D of a backbone of this ``shape``; no ``cache``: each chunk alone."""
        self.config, self.shape, self.cache = config, shape, cache
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

    @property
    def follows(self) -> bool:
        """See :attr:`FastWeights.follows`."""
        return self.cache is not None

    def reset(self) -> SuffixState:
        """Return the learned start, with a fresh optimiser state and an empty cache."""
        matrices: LowRank | Full
        if self.config.target == "lora":
            matrices = LowRank(self.down[...], self.up[...])
        else:
            matrices = Full(self.delta[...])
        cached = None
        if self.cache is not None:
            past = empty_past(self.shape, self.cache.ring, self.cache.layers, jnp.float32)
            cached = Cached(past, jnp.zeros((), jnp.int32))
        return SuffixState(begin(matrices), cached)

    def score(self, fast: SuffixState, chunk: Chunk, readout: Readout) -> Float[Array, " T"]:
        """Return the negative log-likelihood of each target in nats, 0 where masked; changes nothing."""
        return self.read_chunk(fast, chunk, readout).nll

    def score_positions(
        self, fast: SuffixState, chunk: Chunk, readout: Readout, positions: Int[Array, " S"]
    ) -> Float[Array, " S"]:
        """Return :meth:`score` of some positions of the chunk; the others are read as context."""
        return self.read_chunk(fast, chunk, readout, positions).nll

    def read_chunk(
        self, fast: SuffixState, chunk: Chunk, readout: Readout, positions: Int[Array, " S"] | None = None
    ) -> Scored:
        """See :meth:`FastWeights.read_chunk`."""
        hidden, fresh = self._read(fast, chunk, readout, positions)
        targets, mask = chunk.targets, chunk.mask
        if positions is not None:
            targets, mask = targets[positions], mask[positions]
        nll = linear_cross_entropy(hidden, readout.unembedding, targets)
        return Scored(jnp.where(mask, nll, 0.0), fresh if self.follows else None)

    def next_token(
        self, fast: SuffixState, chunk: Chunk, readout: Readout, positions: Int[Array, " S"] | None = None
    ) -> Float[Array, "S V"]:
        """See :meth:`FastWeights.next_token`."""
        logits = frozen_logits(self.hidden(fast, chunk, readout, positions), readout.unembedding)
        return jax.nn.log_softmax(logits, axis=-1)

    def hidden(
        self, fast: SuffixState, chunk: Chunk, readout: Readout, positions: Int[Array, " S"] | None = None
    ) -> Float[Array, "S D"]:
        """Return final normed hidden states under the fast weights, at some positions or at all."""
        return self._read(fast, chunk, readout, positions)[0]

    def adapt(self, fast: SuffixState, chunk: Chunk, readout: Readout, steps: int) -> Adaptation:
        """Make ``steps`` Adam steps on the mean next-token loss of the chosen tokens."""
        chosen = self.chosen_tokens(len(chunk.targets))
        targets, mask = chunk.targets, chunk.mask
        if chosen is not None:
            targets, mask = targets[chosen], mask[chosen]
        entered = self._enter(fast, chunk, readout.suffix, chosen)
        rates = type(fast.descent.matrices)(*jnp.exp(self.log_rate[...]))

        def loss(matrices: LowRank | Full) -> Float[Array, ""]:
            hidden, _ = self._finish(matrices, entered, readout.suffix)
            return masked_mean(linear_cross_entropy(hidden, readout.unembedding, targets), mask)

        descent, inner_loss, count = gradient_steps(fast.descent, loss, rates, self.config.clip_norm, steps)
        return Adaptation(fast._replace(descent=descent), inner_loss, count)

    def follow(self, before: SuffixState, after: SuffixState, fresh: Fresh | None) -> SuffixState:
        """See :meth:`FastWeights.follow`."""
        if self.cache is None or before.cached is None or fresh is None:
            return after
        past, index = before.cached
        past = jax.lax.stop_gradient(written(self.cache.ring, past, fresh, index))
        return after._replace(cached=Cached(past, index + 1))

    def trimmed(self, fast: SuffixState, chunks: int) -> SuffixState:
        """See :meth:`FastWeights.trimmed`; room for 0, 1, 2, 4, … chunks, so that few shapes are compiled."""
        if self.cache is None or fast.cached is None:
            return fast
        room = 1 << (chunks - 1).bit_length() if chunks else 0
        slots = min(room, self.cache.ring.slots) * self.cache.ring.chunk_size
        past = fast.cached.past
        # Chunks fill the slots in order.
        short = past._replace(keys=past.keys[..., :slots, :], values=past.values[..., :slots, :])
        return fast._replace(cached=fast.cached._replace(past=short))

    def flipped(self, before: SuffixState, after: SuffixState) -> SuffixState:
        """See :func:`ponderttt.fast_weights.gradient_steps.opposite`."""
        return after._replace(descent=opposite(before.descent, after.descent))

    def blended(self, before: SuffixState, after: SuffixState, share: Float[Array, ""]) -> SuffixState:
        """See :meth:`FastWeights.blended`."""
        return after._replace(descent=super().blended(before.descent, after.descent, share))

    def chosen_tokens(self, length: int) -> Int[Array, " S"] | None:
        """Return evenly spaced positions whose loss an update uses; ``None`` is all of them."""
        count = max(1, round(self.config.token_share * length))
        return None if count == length else jnp.arange(count) * length // count

    def _read(
        self, fast: SuffixState, chunk: Chunk, readout: Readout, positions: Int[Array, " S"] | None
    ) -> tuple[Float[Array, "S D"], Fresh]:
        entered = self._enter(fast, chunk, readout.suffix, positions)
        return self._finish(fast.descent.matrices, entered, readout.suffix)

    def _enter(
        self,
        fast: SuffixState,
        chunk: Chunk,
        suffix: SuffixWeights | None,
        positions: Int[Array, " S"] | None,
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
        around, fresh = self._around(fast.cached, len(hidden), suffix), []
        for index in range(plain_blocks):
            block = suffix.block(index)
            residual, inner, kept_of = self._attended(block, hidden, around, index)
            hidden = finish_block(self.shape, block, residual, inner)
            fresh.append(kept_of)
        # A beginning-of-sequence token before the chunk is context only.
        before = len(hidden) - len(chunk.targets)
        kept = positions
        if before:
            kept = before + (jnp.arange(len(chunk.targets)) if positions is None else positions)
        asked = kept if self.config.blocks == 1 else None
        residual, inner, kept_of = self._attended(
            suffix.block(plain_blocks), hidden, around, plain_blocks, asked
        )
        return _Entered(residual, inner, around, [*fresh, kept_of], kept)

    def _finish(
        self,
        matrices: LowRank | Full,
        entered: _Entered,
        suffix: SuffixWeights,
    ) -> tuple[Float[Array, "S D"], Fresh]:
        """Return final states, and the keys and values of all blocks."""
        first = suffix.layers - self.config.blocks
        block, fresh = suffix.block(first), list(entered.fresh)
        projected = matrices.project(0, block["mlp_down"], entered.inner)
        hidden = after_down_projection(self.shape, block, entered.residual, projected)
        for layer in range(first + 1, suffix.layers):
            block, last = suffix.block(layer), layer == suffix.layers - 1
            residual, inner, kept_of = self._attended(
                block, hidden, entered.around, layer, entered.kept if last else None
            )
            projected = matrices.project(layer - first, block["mlp_down"], inner)
            hidden = after_down_projection(self.shape, block, residual, projected)
            fresh.append(kept_of)
        final = family_of(self.shape).final_norm(self.shape, suffix.outer, hidden)
        return final, jax.tree.map(lambda *layers: jnp.stack(layers), *fresh)

    def _attended(
        self,
        block: dict[str, Array],
        hidden: Float[Array, "S D"],
        around: _Around,
        layer: int,
        positions: Int[Array, " X"] | None = None,
    ) -> tuple[Float[Array, "X D"], Float[Array, "X F"], Fresh]:
        """Run a block up to its down-projection, at some positions (all by default); return its keys and values too."""
        query, key, value = heads_of(self.shape, block, hidden, around.places[layer])
        scale, window = self.shape.query_scale, around.places[layer].window
        if around.past is None or around.reach is None:
            read = causal_attention(query, key, value, around.mask, scale, window)
        else:
            read, _ = attend(query, key, value, around.mask, around.past, layer, around.reach, scale, window)
        if positions is not None:
            # After attention, positions are independent, so only the requested ones are computed.
            read, hidden = read[positions], hidden[positions]
        fresh = Fresh(key.transpose(1, 0, 2), value.transpose(1, 0, 2))
        return *after_attention(self.shape, block, hidden, read), fresh

    def _around(self, cached: Cached | None, length: int, suffix: SuffixWeights) -> _Around:
        """Return what ``length`` tokens attend to: those of a chunk, and a beginning-of-sequence token before them."""
        own = jnp.arange(length)
        if self.cache is None or cached is None:
            # A chunk's mask is that of its targets, which do not exist yet in decoding.  Padded inputs come after all real
            # ones, so causal attention hides them from every position that counts.
            return _Around(suffix_places(self.shape, suffix, own), jnp.ones(length, bool))
        ring, (past, index) = self.cache.ring, cached
        mask = (own >= ring.front) | (index == 0)
        own = jnp.where(own < ring.front, own, own + index * ring.chunk_size)
        places = suffix_places(self.shape, suffix, own)
        held = past.keys.shape[2] // ring.chunk_size
        if not held:
            return _Around(places, mask)
        reach = replace(ring, slots=held).reach(index, ring.chunk_size)
        # A known number of slots, so that gradients flow through the loop over them; those that are empty are hidden.
        reach = reach._replace(own=own, filled=held)
        past = jax.lax.stop_gradient(past)
        first = self.shape.layers - suffix.layers
        sinks = turned_sinks(self.shape, ring, first, past.sink_keys, index)
        return _Around(places, mask, past._replace(sink_keys=sinks), reach)
