"""Memory: adapting stores (hidden state, next token) pairs, and reading mixes them into the model's distribution.

This is the non-parametric limit of test-time training: a Nadaraya-Watson estimate from stored pairs replaces a model that
gradient steps fit to them (Sun et al. 2024, arXiv:2407.04620, §2.7).  The mixture is that of the continuous cache
(Grave et al. 2017, arXiv:1612.04426), with a mixture weight that depends on the similarity of the nearest pair.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ponderttt.fast_weights.base import Adaptation, Chunk, FastWeights, Readout, masked_mean
from ponderttt.settings.fast_weights import MemoryConfig

#: Scaled similarity of an empty slot, and probability of a token that no pair holds; finite, so that gradients are.
_ABSENT, _NOTHING = -1e30, 1e-37
#: Inputs of the mixture weight are centred at typical values, which decouples its offset from its slopes in training.
_TYPICAL_SIMILARITY, _TYPICAL_ENTROPY = 0.6, 2.0
#: Scale of similarities, which vary by a tenth of the other inputs: all slow weights are trained at one rate.
_SIMILARITY_SLOPE_UNIT = 10.0


class MemoryFast(NamedTuple):
    """A ring of M pairs; the oldest is overwritten first."""

    #: Standardised hidden states, scaled to length 1; zeros in empty slots.
    keys: Float[Array, "M D"]
    #: The token after each hidden state.
    values: Int[Array, " M"]
    #: Number of pairs stored so far; the next one goes to this slot, modulo M.
    written: Int[Array, ""]


class MemoryPart(NamedTuple):
    """What T queries find among some pairs, such as those of one chunk."""

    #: Log of the softmax's terms, summed over the pairs; so small that it counts for nothing without a pair.
    total: Float[Array, "*K T"]
    #: The same over the pairs that hold the query's own target.
    found: Float[Array, "*K T"]
    #: Similarity of the nearest pair; −1 without a pair.
    nearest: Float[Array, "*K T"]

    def plus(self, other: MemoryPart) -> MemoryPart:
        """Return what the queries find among the pairs of both."""
        return MemoryPart(
            jnp.logaddexp(self.total, other.total),
            jnp.logaddexp(self.found, other.found),
            jnp.maximum(self.nearest, other.nearest),
        )


class _Reading(NamedTuple):
    """Result of T queries."""

    #: Softmax over the pairs, 0 in empty slots.
    weights: Float[Array, "T M"]
    #: Similarity of the nearest pair.
    nearest: Float[Array, " T"]


class Memory(FastWeights):
    """Stored pairs as fast weights; slow weights are the standardisation, the temperature and the mixture weight."""

    reads = "losses"

    def __init__(self, width: int, config: MemoryConfig, *, rngs: nnx.Rngs) -> None:
        """Initialise for hidden states of ``width`` D; nothing is drawn from ``rngs``."""
        self.config = config
        self.centre = nnx.Param(jnp.zeros(width))
        # In log space, so that they stay positive.
        self.log_scale = nnx.Param(jnp.zeros(width))
        self.log_inverse_temperature = nnx.Param(jnp.asarray(math.log(config.inverse_temperature)))
        weight = config.mixing_weight
        self.mixing_logit = nnx.Param(jnp.asarray(math.log(weight / (1 - weight))))
        self.mixing_similarity = nnx.Param(jnp.asarray(config.mixing_similarity / _SIMILARITY_SLOPE_UNIT))
        self.mixing_entropy = nnx.Param(jnp.asarray(config.mixing_entropy))

    def prepare(self, hidden: Float[np.ndarray, "N D"]) -> None:
        """Set the standardisation to mean and standard deviation of training states; training starts from there.

        Without it, the few dimensions in which a language model's states are largest determine similarity.
        """
        self.centre[...] = jnp.asarray(hidden.mean(axis=0, dtype=np.float64), jnp.float32)
        deviation = hidden.std(axis=0, dtype=np.float64)
        self.log_scale[...] = jnp.asarray(-np.log(np.maximum(deviation, 1e-6)), jnp.float32)

    def reset(self) -> MemoryFast:
        """Return an empty ring."""
        capacity = self.config.capacity
        return MemoryFast(
            jnp.zeros((capacity, *self.centre[...].shape)),
            jnp.zeros(capacity, jnp.int32),
            jnp.zeros((), jnp.int32),
        )

    def score(self, fast: MemoryFast, chunk: Chunk, readout: Readout) -> Float[Array, " T"]:
        """See :meth:`FastWeights.score`; an empty memory returns exactly ``chunk.nll_frozen``."""
        return self._nll(fast, chunk)

    def score_positions(
        self, fast: MemoryFast, chunk: Chunk, readout: Readout, positions: Int[Array, " S"]
    ) -> Float[Array, " S"]:
        """Return :meth:`score` of some positions; the others are not read."""
        return self._nll(fast, jax.tree.map(lambda field: field[positions], chunk))

    def adapt(self, fast: MemoryFast, chunk: Chunk, readout: Readout, steps: int) -> Adaptation:
        """Store ``steps`` quarters of the chunk's real tokens (rounded up), the most surprising first.

        Surprise is the frozen loss.  Pairs are stored in the order of the chunk.  If there are more than the capacity,
        the most surprising are stored.
        """
        source, inside = self._stored(chunk, steps)
        places = (fast.written + jnp.arange(len(source))) % self.config.capacity
        slots = jnp.where(inside, places, self.config.capacity)
        after = MemoryFast(
            fast.keys.at[slots].set(self._unit(chunk.hidden[source]), mode="drop"),
            fast.values.at[slots].set(chunk.targets[source], mode="drop"),
            fast.written + jnp.sum(inside, dtype=jnp.int32),
        )
        return Adaptation(after, masked_mean(chunk.nll_frozen[source], inside), jnp.asarray(steps, jnp.int32))

    def next_token(
        self, fast: MemoryFast, chunk: Chunk, readout: Readout, positions: Int[Array, " S"] | None = None
    ) -> Float[Array, "S V"]:
        """See :meth:`FastWeights.next_token`."""
        frozen = jax.nn.log_softmax(readout.rows(chunk, positions), axis=-1)
        entropy = -jnp.sum(jnp.exp(frozen) * frozen, axis=-1)
        reading = self._read(fast, chunk.hidden if positions is None else chunk.hidden[positions])
        memory = jnp.zeros_like(frozen).at[:, fast.values].add(reading.weights)
        mixed = self._mix(frozen.T, memory.T, reading, entropy).T
        return jnp.where(fast.written > 0, mixed, frozen)

    def reconstruction(self, fast: MemoryFast, chunk: Chunk) -> Float[Array, ""]:
        """Return the mean squared distance of real tokens' keys from the memory's estimates; 1 if it is empty."""
        reading = self._read(fast, chunk.hidden)
        estimate = jnp.einsum("TM,MD->TD", reading.weights, fast.keys)
        return masked_mean(jnp.sum(jnp.square(self._unit(chunk.hidden) - estimate), axis=-1), chunk.mask)

    def part(self, source: Chunk, steps: int, chunk: Chunk) -> MemoryPart:
        """Return what the queries of a chunk find among the pairs that ``adapt(source, steps)`` stores; none for 0 steps.

        While nothing is dropped from the ring, a memory is the sum of such parts, see :meth:`MemoryPart.plus`.
        """
        if not steps:
            nothing = jnp.full(chunk.targets.shape, _ABSENT)
            return MemoryPart(nothing, nothing, jnp.full(chunk.targets.shape, -1.0))
        positions, inside = self._stored(source, steps)
        similarity = jnp.einsum("TD,MD->TM", self._unit(chunk.hidden), self._unit(source.hidden[positions]))
        scaled = jnp.where(inside, jnp.exp(self.log_inverse_temperature[...]) * similarity, _ABSENT)
        same = source.targets[positions] == chunk.targets[:, None]
        return MemoryPart(
            jax.nn.logsumexp(scaled, axis=-1),
            jax.nn.logsumexp(jnp.where(same, scaled, _ABSENT), axis=-1),
            jnp.max(jnp.where(inside, similarity, -1.0), axis=-1),
        )

    def score_part(self, part: MemoryPart, chunk: Chunk) -> Float[Array, " T"]:
        """Return :meth:`score` of a memory whose pairs are these."""
        # Of the reading, the mixture needs the nearest similarity alone.
        reading = _Reading(jnp.empty(0), part.nearest)
        nll = -self._mix(-chunk.nll_frozen, jnp.exp(part.found - part.total), reading, chunk.entropy)
        return jnp.where(chunk.mask, jnp.where(part.total > _ABSENT / 2, nll, chunk.nll_frozen), 0.0)

    def flipped(self, before: MemoryFast, after: MemoryFast) -> MemoryFast:
        """Negate the new keys, so that dissimilar contexts find them."""
        capacity = self.config.capacity
        age = (after.written - 1 - jnp.arange(capacity)) % capacity
        new = age < after.written - before.written
        return after._replace(keys=jnp.where(new[:, None], -after.keys, after.keys))

    def _stored(self, chunk: Chunk, steps: int) -> tuple[Int[Array, " M"], Bool[Array, " M"]]:
        """Return the positions whose pairs an update stores, in the order of the chunk, and which of them count."""
        length = chunk.hidden.shape[0]
        limit = min(-(-length * steps // 4), length, self.config.capacity)
        surprise = jnp.where(chunk.mask, chunk.nll_frozen, -jnp.inf)
        _, order = jax.lax.top_k(surprise, limit)
        stored = jnp.minimum(-(-jnp.sum(chunk.mask) * steps // 4), limit)
        inside = jnp.arange(limit) < stored
        # Tokens that are not stored come last.
        return jnp.minimum(jnp.sort(jnp.where(inside, order, length)), length - 1), inside

    def _unit(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        centred = (hidden - self.centre[...]) * jnp.exp(self.log_scale[...])
        return centred * jax.lax.rsqrt(jnp.sum(jnp.square(centred), axis=-1, keepdims=True) + 1e-12)

    def _read(self, fast: MemoryFast, hidden: Float[Array, "T D"]) -> _Reading:
        similarity = jnp.einsum("TD,MD->TM", self._unit(hidden), fast.keys)
        present = jnp.arange(self.config.capacity) < fast.written
        # Empty slots are set after the product: a compiler that fuses it with the softmax's difference would leave the
        # rounding error of so large a number, whose exponential is infinite.
        scaled = jnp.where(present, jnp.exp(self.log_inverse_temperature[...]) * similarity, _ABSENT)
        nearest = jnp.max(jnp.where(present, similarity, -1.0), axis=-1)
        return _Reading(jax.nn.softmax(scaled, axis=-1), nearest)

    def _mix(
        self,
        frozen: Float[Array, "*V T"],
        memory: Float[Array, "*V T"],
        reading: _Reading,
        entropy: Float[Array, " T"],
    ) -> Float[Array, "*V T"]:
        """Return log-probabilities of the mixture of frozen log-probabilities and the memory's probabilities."""
        nearness = _SIMILARITY_SLOPE_UNIT * (reading.nearest - _TYPICAL_SIMILARITY)
        logit = (
            self.mixing_logit[...]
            + self.mixing_similarity[...] * nearness
            + self.mixing_entropy[...] * (entropy - _TYPICAL_ENTROPY)
        )
        found = jnp.log(jnp.maximum(memory, _NOTHING))
        return jnp.logaddexp(frozen + jax.nn.log_sigmoid(-logit), found + jax.nn.log_sigmoid(logit))

    def _nll(self, fast: MemoryFast, chunk: Chunk) -> Float[Array, " T"]:
        reading = self._read(fast, chunk.hidden)
        same = fast.values == chunk.targets[:, None]
        memory = jnp.sum(jnp.where(same, reading.weights, 0.0), axis=-1)
        nll = -self._mix(-chunk.nll_frozen, memory, reading, chunk.entropy)
        return jnp.where(chunk.mask, jnp.where(fast.written > 0, nll, chunk.nll_frozen), 0.0)
