"""Training of a binary gate end to end through the stream, see :mod:`ponderttt.training.gate_stream`.

A whole stream is one step, on the loss

    L = L_CE + ttt_weight · L_TTT + cost_weight · L_cost

L_CE is the mean committed loss of the stream's tokens in nats.  L_TTT is the mean over chunks of the reconstruction
error, as a share of what fresh fast weights have: raw errors are sums over the width of a head, beside which neither
nats nor costs would count.  Modules whose inner loss is the next-token loss reconstruct nothing: their inner loss is
L_CE, and L_TTT is 0.  L_cost is the mean over chunks of what the decision costs above SKIP in units of one update,
which is the mean of g.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from ponderttt.fast_weights.base import FastWeights, Readout
from ponderttt.features.normalise import Normaliser
from ponderttt.features.table import BASE
from ponderttt.files.checkpoints import Checkpoints
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.loop.programs import ModulePrograms, project
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.gumbel import temperature_at
from ponderttt.policies.networks import Gate
from ponderttt.seeds import named_key
from ponderttt.settings.gate import GateConfig
from ponderttt.training.gate_stream import GateStream, Kind, StreamPlayed, gate_stream, play
from ponderttt.training.slow_weights import Log
from ponderttt.training.world import streams_within


class GateState(NamedTuple):
    """Everything that changes while a gate is trained."""

    weights: Any
    optimiser: optax.OptState


def train_gate(
    module: FastWeights,
    streams: Sequence[FrozenChunks],
    readout: Readout,
    normaliser: Normaliser,
    config: GateConfig,
    kind: Kind,
    seed: int,
    checkpoints: Checkpoints,
    progress: Callable[[int, int, float], None] = lambda step, total, loss: None,
    costs: Sequence[float] = NOMINAL_COSTS,
    inputs: int = BASE,
    logits_bytes: float = 0,
) -> tuple[Gate, Log]:
    """Train a gate, one optimiser step for each stream and epoch.

    Args:
        module: fast weights with trained slow weights, never changed.
        streams: of the training split.
        readout: the frozen matrices that a chunk is read with, never changed; without logits.
        normaliser: statistics of the features over training streams.
        config: see :class:`ponderttt.settings.gate.GateConfig`.
        kind: ``hard`` decides SKIP or UPDATE_1, ``soft`` the share of UPDATE_1 that is kept.
        seed: of the gate's initial weights, the order of streams and the draws.
        checkpoints: an entered :class:`Checkpoints`; training goes on from its newest one.
        progress: called with (steps done, steps in all, loss).
        costs: of the four actions, which the gate sees as in the loop.
        inputs: how many features it sees, the first of the table.
        logits_bytes: frozen logits that are kept from epoch to epoch, of the first streams; others are projected again.

    Returns:
        The trained gate and the log, one mapping for each step: the parts of the loss (``ce``, ``ttt``, ``cost``) before
        their weights, and the ``temperature`` of the draws (1 for soft gates, which draw nothing).
    """
    order = _order(len(streams), config.epochs, seed)
    size = max(len(stream.hidden) for stream in streams)
    gate_graph, weights = nnx.split(Gate(inputs, rngs=nnx.Rngs(named_key(seed, "gate"))))
    # Made once where it is slow: the product of the module's basis with the vocabulary.
    readout = ModulePrograms(module).readout(readout.unembedding, None, readout.suffix)
    graph, slow = nnx.split(module)
    train_step = _compile(graph, gate_graph, config, kind, tuple(costs))
    state = GateState(weights, _optimiser(config).init(weights))
    # Which streams these are does not depend on where training was resumed: programs with and without them round apart.
    keeps = (
        streams_within(streams, readout.unembedding.shape[0], logits_bytes) if module.reads == "logits" else 0
    )
    kept: dict[int, Float[Array, "N T V"]] = {}
    done = 0
    log: Log = []
    if (found := checkpoints.restore(state)) is not None:
        done, state, log = found

    for step in range(done, len(order)):
        epoch, chosen = order[step]
        temperature = temperature_at(step, len(order), config) if kind == "hard" else 1.0
        stream = gate_stream(streams[chosen], size)
        if chosen < keeps:
            if chosen not in kept:
                kept[chosen] = project(stream.chunks, readout.unembedding).value
            stream = stream._replace(logits=kept[chosen])
        key = named_key(seed, "gate draws", step)
        state, numbers = train_step(state, slow, normaliser, stream, readout, key, temperature)
        line = {name: float(value) for name, value in numbers.items()}
        log.append({"step": step + 1, "epoch": epoch, "temperature": temperature, **line})
        progress(step + 1, len(order), line["loss"])
        if step + 1 == len(order) or (step + 1) % config.checkpoint_every_steps == 0:
            checkpoints.save(step + 1, state, log)
    return nnx.merge(gate_graph, state.weights), log


def _order(streams: int, epochs: int, seed: int) -> list[tuple[int, int]]:
    """(epoch, stream) of every step; each epoch has every stream once, in an order of its own."""
    return [
        (epoch, int(stream))
        for epoch in range(epochs)
        for stream in np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(streams)
    ]


def _optimiser(config: GateConfig) -> optax.GradientTransformation:
    """Adam with clipping."""
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(config.learning_rate))


@lru_cache(maxsize=8)
def _compile(
    graph: nnx.GraphDef[FastWeights],
    gate_graph: nnx.GraphDef[Gate],
    config: GateConfig,
    kind: Kind,
    costs: tuple[float, ...],
) -> Callable[..., tuple[GateState, dict[str, Array]]]:
    """The training step; it holds no arrays, so that trainings of one shape share what was compiled."""
    optimiser = _optimiser(config)

    def loss_of(
        weights: Any,
        slow: Any,
        normaliser: Normaliser,
        stream: GateStream,
        readout: Readout,
        key: Any,
        temperature: Any,
    ) -> tuple[Float[Array, ""], StreamPlayed]:
        gate, module = nnx.merge(gate_graph, weights), nnx.merge(graph, slow)
        played = play(module, gate, normaliser, stream, readout, config, kind, key, temperature, costs)
        return played.loss, played

    @jax.jit
    def train_step(state: GateState, *fixed: Any) -> tuple[GateState, dict[str, Array]]:
        (_, played), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.weights, *fixed)
        updates, optimiser_state = optimiser.update(gradients, state.optimiser, state.weights)
        weights = optax.apply_updates(state.weights, updates)
        numbers = {name: getattr(played, name) for name in ("loss", "ce", "ttt", "cost")}
        numbers["update_share"] = played.update_share
        numbers["grad_norm"] = optax.tree.norm(gradients)
        return GateState(weights, optimiser_state), numbers

    return train_step
