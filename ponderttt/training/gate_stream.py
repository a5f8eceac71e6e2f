"""A stream under a gate, as one differentiable program.

For each chunk, as at test time: score, observe, let the gate decide, make one update and keep the fraction g of it,

    fast ← (1 − g)·fast + g·adapt(fast, chunk),

with g in {0, 1} (``hard``, a straight-through sample) or in 0..1 (``soft``, the probability of UPDATE, as at test time).
So the loss of later chunks has a gradient with respect to every earlier g.

No gradient flows through the gate's observations; backbone and slow weights are constants.

A memory also holds integers (which token, how many), which have no gradient: after a hard SKIP its loss does not depend on
the update that was not made.  So a second memory with the relaxed g runs beside the one with the samples.  Losses,
observations and decisions come from the first, gradients from the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ponderttt.actions import Action
from ponderttt.fast_weights.base import Chunk, Fast, FastWeights, Readout
from ponderttt.fast_weights.memory import Memory
from ponderttt.features.history import TRACED, History, observe, reconstruction_error, remember
from ponderttt.features.history import start as no_history
from ponderttt.features.normalise import Normaliser
from ponderttt.features.table import NAMES
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.models.losses import frozen_logits
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.gumbel import gate_logits, relaxed, straight_through
from ponderttt.policies.networks import Gate
from ponderttt.settings.gate import GateConfig
from ponderttt.training.slow_weights import window_chunks

Kind = Literal["hard", "soft"]
#: Reconstruction error of fresh fast weights below which there is nothing to learn.
_SMALLEST_ERROR = 1e-6


class GateStream(NamedTuple):
    """One stream of up to N chunks; missing chunks are fully masked."""

    #: With a leading axis of N.
    chunks: Chunk
    #: Features of the frozen pass, in the order of ``features.table.FROZEN``.
    features: Float[Array, "N R"]
    #: Mean frozen loss of each chunk, nats per token.
    loss_frozen: Float[Array, " N"]
    #: True for chunks that exist.
    length: Int[Array, ""]
    #: Frozen logits of the chunks; None if they are not cached.
    logits: Float[Array, "N T V"] | None = None


class ChunkPlayed(NamedTuple):
    """Result of one chunk; zeros for a missing chunk."""

    #: Contribution to L_CE + ttt_weight · L_TTT.
    objective: Float[Array, ""]
    #: Committed loss, nats per token.
    loss: Float[Array, ""]
    #: Sum of the losses of the chunk's tokens, nats.
    nll: Float[Array, ""]
    #: Reconstruction error relative to fresh fast weights; 0 for adapters without one.
    error_left: Float[Array, ""]
    #: g, the fraction of the update that was kept.
    share: Float[Array, ""]
    #: Raw features that the gate saw.
    features: Float[Array, " F"]


class StreamPlayed(NamedTuple):
    """Result of a stream under a gate."""

    loss: Float[Array, ""]
    ce: Float[Array, ""]
    ttt: Float[Array, ""]
    #: Mean of g.
    cost: Float[Array, ""]
    #: Fraction of chunks with g above ½.
    update_share: Float[Array, ""]
    #: With a leading axis of N.
    chunks: ChunkPlayed
    #: Fast weights at the end of the stream.
    fast: Fast


class Score(NamedTuple):
    """Result of scoring a chunk, before anything is learned from it."""

    objective: Float[Array, ""]
    nll: Float[Array, ""]
    #: Reconstruction error as in the loop; None for adapters without one.
    reconstruction: Float[Array, ""] | None
    error_left: Float[Array, ""]
    #: What the module keeps of the chunk.
    fresh: Any = None


def gate_stream(stream: FrozenChunks, size: int) -> GateStream:
    """Put a stream of at most ``size`` chunks on the device."""
    count = len(stream.hidden)
    missing = size - count
    rows, losses = (
        np.asarray(values, np.float32) for values in (stream.features[:count], stream.loss_frozen[:count])
    )
    return GateStream(
        window_chunks(stream, 0, size),
        jnp.asarray(np.pad(rows, ((0, missing), (0, 0)))),
        jnp.asarray(np.pad(losses, (0, missing))),
        jnp.asarray(count, jnp.int32),
    )


class Weights(NamedTuple):
    """Weights of the parts of a chunk's objective."""

    #: Weight of the sum of its tokens' losses.
    nll: Float[Array, ""]
    error_left: Float[Array, ""]


def score(module: FastWeights, fast: Fast, chunk: Chunk, readout: Readout, weights: Weights) -> Score:
    """Score a chunk with the current fast weights."""
    read = module.read_chunk(fast, chunk, readout)
    nll = jnp.sum(read.nll)
    error, left = module.reconstruction(fast, chunk), jnp.zeros(())
    fresh = module.reconstruction(module.reset(), chunk)
    if error is not None and fresh is not None:
        left = error / jnp.maximum(fresh, _SMALLEST_ERROR)
    return Score(weights.nll * nll + weights.error_left * left, nll, error, left, read.fresh)


def score_with_gradient(
    module: FastWeights, fast: Fast, chunk: Chunk, readout: Readout, weights: Weights
) -> Score:
    """Score a chunk as :func:`score` does, with a gradient of the objective.

    The gradient is computed at once, while the logits of the chunk exist, and enters as the linear term
    ⟨gradient, fast − fast⟩, which is 0.  So the backward pass projects nothing again, and no [T, V] array is kept.
    """

    def told(fast: Fast) -> tuple[Float[Array, ""], Score]:
        scored = score(module, fast, chunk, readout, weights)
        return scored.objective, scored

    here = jax.lax.stop_gradient(fast)
    (objective, scored), slopes = jax.value_and_grad(told, has_aux=True, allow_int=True)(here)
    for slope, leaf, value in zip(*map(jax.tree.leaves, (slopes, fast, here)), strict=True):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            objective += jnp.sum(slope * (leaf - value))
    return scored._replace(objective=objective)


def play(
    module: FastWeights,
    gate: Gate,
    normaliser: Normaliser,
    stream: GateStream,
    readout: Readout,
    config: GateConfig,
    kind: Kind,
    key: Key[Array, ""],
    temperature: Float[Array, ""] | float,
    costs: Sequence[float] = NOMINAL_COSTS,
) -> StreamPlayed:
    """Run one stream under a gate; traceable, and differentiable with respect to the gate.

    Args:
        module: adapter with trained slow weights.
        gate: the gate.
        normaliser: statistics of the features.
        stream: see :func:`gate_stream`.
        readout: frozen matrices, without logits.
        config: weights of the losses.
        kind: kind of the gate.
        key: key of the samples of a hard gate.
        temperature: temperature of these samples.
        costs: cost of each of the four actions, observed by the gate.
    """
    tokens = jnp.maximum(jnp.sum(stream.chunks.mask), 1).astype(jnp.float32)
    count = stream.length.astype(jnp.float32)
    price = jnp.asarray(costs, jnp.float32)
    parts = Weights(1 / tokens, config.ttt_weight / count)
    shadowed = kind == "hard" and isinstance(module, Memory)
    # Fast weights, the relaxed ones if there are two, and the history.
    carried = tuple[Fast, Fast, History]

    def one_chunk(carry: carried, inputs: tuple[Any, ...]) -> tuple[carried, ChunkPlayed]:
        (fast, shadow, history), (t, chunk, frozen_row, loss_frozen, noise, logits) = carry, inputs
        read = readout
        if module.reads == "logits":
            if logits is None:
                logits = frozen_logits(chunk.hidden, readout.unembedding)
            read = readout._replace(logits=logits)
        scored = score_with_gradient(module, shadow if shadowed else fast, chunk, read, parts)
        objective = scored.objective
        if shadowed:
            scored = score(module, fast, chunk, read, parts)
            objective = scored.objective + (objective - jax.lax.stop_gradient(objective))
        loss = scored.nll / jnp.maximum(jnp.sum(chunk.mask), 1)
        seen = {
            "loss": loss,
            "loss_frozen": loss_frozen,
            "reconstruction": reconstruction_error(scored.reconstruction, frozen_row),
        }
        row = observe(
            frozen_row,
            history,
            **seen,
            chunk_index=t,
            chunks_left=stream.length - t - 1,
            budget_left=jnp.inf,
            budget=jnp.inf,
            xp=TRACED,
        )
        leaning = gate_logits(gate, normaliser, jax.lax.stop_gradient(row))
        if kind == "hard":
            relaxation = relaxed(leaning, noise, temperature)
            share = straight_through(relaxation)[1]
            action = jnp.where(share > 0.5, int(Action.UPDATE_1), int(Action.SKIP))
        else:
            share = jax.nn.softmax(leaning)[1]
            action = jnp.asarray(int(Action.UPDATE_1))

        def learned(fast: Fast, share: Float[Array, ""]) -> Fast:
            after = module.blended(fast, module.adapt(fast, chunk, read, 1).fast, share)
            return module.follow(fast, after, scored.fresh)

        if shadowed:
            shadow, fast = learned(shadow, relaxation[1]), learned(fast, jax.lax.stop_gradient(share))
        else:
            fast = learned(fast, share)
        history = remember(history, **seen, action=action, cost=price[action], xp=TRACED)
        played = ChunkPlayed(objective, loss, scored.nll, scored.error_left, share, row)
        return (fast, shadow, history), played

    def no_chunk(carry: carried, inputs: tuple[Any, ...]) -> tuple[carried, ChunkPlayed]:
        zero = jnp.zeros(())
        return carry, ChunkPlayed(zero, zero, zero, zero, zero, jnp.zeros(len(NAMES)))

    def step(carry: carried, inputs: tuple[Any, ...]) -> tuple[carried, ChunkPlayed]:
        # Outside vmap the branch that is not taken costs nothing.
        return jax.lax.cond(inputs[0] < stream.length, one_chunk, no_chunk, carry, inputs)

    size = len(stream.loss_frozen)
    noises = jax.random.split(key, size)
    each = (jnp.arange(size), stream.chunks, stream.features, stream.loss_frozen, noises, stream.logits)
    fresh = module.reset()
    start = (fresh, fresh if shadowed else (), no_history(TRACED))
    (fast, _, _), played = jax.lax.scan(step, start, each)
    cost = jnp.sum(played.share) / count
    return StreamPlayed(
        loss=jnp.sum(played.objective) + config.cost_weight * cost,
        ce=jnp.sum(played.nll) / tokens,
        ttt=jnp.sum(played.error_left) / count,
        cost=cost,
        update_share=jnp.sum(played.share > 0.5) / count,
        chunks=played,
        fast=fast,
    )
