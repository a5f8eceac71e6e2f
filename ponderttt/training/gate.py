"""Training of a binary gate end to end through the stream, see :mod:`ponderttt.training.gate_stream`.

Each step takes a whole stream and minimises

    L = L_CE + ttt_weight · L_TTT + cost_weight · L_cost

L_CE is the mean committed loss of the stream's tokens in nats.  L_TTT is the mean over chunks of the reconstruction
error, relative to that of fresh fast weights: raw errors are sums over the width of a head and would dominate nats and
costs.  Adapters whose inner loss is the next-token loss have no reconstruction error: their inner loss is L_CE, and L_TTT
is 0.  L_cost is the mean over chunks of the decision's cost above SKIP, in units of one update: the mean of g.
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
    """Training state of a gate."""

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
    """Train a gate with one optimiser step per stream and epoch.

    Args:
        module: adapter with trained slow weights, which stay fixed.
        streams: streams of the training split.
        readout: frozen matrices that score a chunk, without logits.
        normaliser: statistics of the features over training streams.
        config: see :class:`ponderttt.settings.gate.GateConfig`.
        kind: ``hard`` decides SKIP or UPDATE_1, ``soft`` the share of UPDATE_1 that is kept.
        seed: seed of the gate's initial weights, the order of streams and the samples.
        checkpoints: an entered :class:`Checkpoints`; training resumes from its newest one.
        progress: called with (steps done, total, loss).
        costs: cost of each of the four actions, observed by the gate as in the loop.
        inputs: number of features that it sees, the first of the table.
        logits_bytes: size of the cache of frozen logits, for the first streams; others are projected again in each epoch.

    Returns:
        The trained gate and the log, one mapping per step: the unweighted parts of the loss (``ce``, ``ttt``, ``cost``) and
        the ``temperature`` of the samples (1 for soft gates, which do not sample).
    """
    order = _order(len(streams), config.epochs, seed)
    size = max(len(stream.hidden) for stream in streams)
    gate_graph, weights = nnx.split(Gate(inputs, rngs=nnx.Rngs(named_key(seed, "gate"))))
    # Slow, so computed once: the product of the adapter's basis with the vocabulary.
    readout = ModulePrograms(module).readout(readout.unembedding, None, readout.suffix)
    graph, slow = nnx.split(module)
    train_step = _compile(graph, gate_graph, config, kind, tuple(costs))
    state = GateState(weights, _optimiser(config).init(weights))
    # The choice must not depend on where training resumes: programs with and without cached logits round differently.
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
    """Return (epoch, stream) of every step; each epoch has every stream once, in its own order."""
    return [
        (epoch, int(stream))
        for epoch in range(epochs)
        for stream in np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(streams)
    ]


def _optimiser(config: GateConfig) -> optax.GradientTransformation:
    """Return Adam with clipping of the gradient norm."""
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(config.learning_rate))


@lru_cache(maxsize=8)
def _compile(
    graph: nnx.GraphDef[FastWeights],
    gate_graph: nnx.GraphDef[Gate],
    config: GateConfig,
    kind: Kind,
    costs: tuple[float, ...],
) -> Callable[..., tuple[GateState, dict[str, Array]]]:
    """Return the training step; it holds no arrays, so trainings of one shape share its compiled program."""
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
