"""Training of slow weights across training streams: truncated back-propagation through the loop.

Each step takes a window of consecutive chunks of one stream.  Every chunk is scored first and learned from afterwards,
as at test time.  Gradients flow through the updates inside the window; of earlier updates only the fast weights are
kept.  Each stream draws one action (0, 1, 2 or 4 updates) per epoch and keeps it, so the adapter is trained for all of
them, SKIP included: the baseline (trained adapter, 0 updates) stays within the training distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from ponderttt.actions import Action
from ponderttt.fast_weights.base import Chunk, Fast, FastWeights, Readout, as_chunk
from ponderttt.files.checkpoints import Checkpoints
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.seeds import named_key
from ponderttt.settings.training import TrainingConfig

Log = list[dict[str, Any]]


class TrainState(NamedTuple):
    """Training state of slow weights."""

    slow: Any
    optimiser: optax.OptState
    #: Fast weights of the current stream at the start of the next window.
    fast: Fast
    best_slow: Any
    best_validation: Float[Array, ""]


@dataclass(frozen=True)
class Window:
    """A training step: ``chunks`` consecutive chunks of a stream, from ``start``."""

    epoch: int
    stream: int
    start: int
    action: Action


class WindowLoss(NamedTuple):
    """Sums over the sampled tokens of a window; nats."""

    loss: Float[Array, ""]
    #: Loss of the frozen backbone on the same tokens.
    frozen: Float[Array, ""]
    tokens: Float[Array, ""]
    fast: Fast


def schedule(lengths: Sequence[int], config: TrainingConfig, seed: int, epoch: int) -> list[Window]:
    """Return the windows of one epoch: streams in random order, each cut from its start, with one action per stream."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
    windows = []
    for stream in rng.permutation(len(lengths)):
        action = Action(int(rng.integers(len(Action))))
        starts = range(0, lengths[stream], config.window_chunks)
        windows += [Window(epoch, int(stream), start, action) for start in starts]
    return windows


def window_loss(
    module: FastWeights,
    fast: Fast,
    chunks: Chunk,
    readout: Readout,
    action: Int[Array, ""],
    key: Key[Array, ""],
    outer_tokens: int | None,
) -> WindowLoss:
    """Return the score-first loss of a window.

    Args:
        module: adapter with the slow weights.
        fast: fast weights at the start of the window.
        chunks: W chunks along a leading axis; a chunk without real tokens is neither scored nor learned from.
        readout: frozen vocabulary projection, without logits, and the frozen suffix if the adapter reads at the split.
        action: index of the action after each chunk.
        key: samples the tokens of the outer loss.
        outer_tokens: tokens per chunk in the outer loss; None for all.
    """

    def one_chunk(fast: Fast, inputs: tuple[Chunk, Key[Array, ""]]) -> tuple[Fast, tuple[Any, ...]]:
        chunk, key = inputs
        length = chunk.hidden.shape[0]
        positions = jnp.arange(length)
        if outer_tokens is not None and outer_tokens < length:
            positions = jnp.sort(jax.random.permutation(key, length)[:outer_tokens])
        nll, fresh = module.read_chunk(fast, chunk, readout, positions)

        def learn(steps: int) -> Callable[[Fast], Fast]:
            return (lambda f: module.adapt(f, chunk, readout, steps).fast) if steps else (lambda f: f)

        # Outside vmap a switch runs only the chosen branch.
        after = jax.lax.switch(action, [learn(a.steps) for a in Action], fast)
        after = module.follow(fast, after, fresh)
        real = jnp.any(chunk.mask)
        after = jax.tree.map(lambda new, old: jnp.where(real, new, old), after, fast)
        return after, (jnp.sum(nll), jnp.sum(chunk.nll_frozen[positions]), jnp.sum(chunk.mask[positions]))

    keys = jax.random.split(key, chunks.hidden.shape[0])
    fast, (losses, frozen, counts) = jax.lax.scan(one_chunk, fast, (chunks, keys))
    return WindowLoss(jnp.sum(losses), jnp.sum(frozen), jnp.sum(counts).astype(jnp.float32), fast)


def entering(module: FastWeights, carried: Fast, begins: Bool[Array, ""]) -> Fast:
    """Return the fast weights at the start of a window: fresh at the start of a stream, else those carried so far.

    Carried fast weights enter as the learned start plus a constant: their value does not change, but every window trains
    the start (as if the Jacobian of earlier windows were the identity).
    """

    def leaf(first: Array, now: Array) -> Array:
        if jnp.issubdtype(first.dtype, jnp.floating):
            now = first + jax.lax.stop_gradient(now - first)
        return jnp.where(begins, first, now)

    return jax.tree.map(leaf, module.reset(), carried)


def window_chunks(stream: FrozenChunks, start: int, size: int) -> Chunk:
    """Return chunks ``start … start+size−1`` of a stream; beyond its end, fully masked chunks."""
    names = [name for name in Chunk._fields if name != "split" or stream.split is not None]
    parts = {name: np.asarray(getattr(stream, name)[start : start + size]) for name in names}
    missing = size - len(parts["mask"])
    if missing:
        parts = {
            name: np.concatenate([value, np.zeros((missing, *value.shape[1:]), value.dtype)])
            for name, value in parts.items()
        }
    return as_chunk(parts)


def train_slow_weights(
    module: FastWeights,
    training: Sequence[FrozenChunks],
    validation: Sequence[FrozenChunks],
    readout: Readout,
    config: TrainingConfig,
    seed: int,
    checkpoints: Checkpoints,
    progress: Callable[[int, int, float], None] = lambda step, total, loss: None,
) -> tuple[FastWeights, Log]:
    """Train ``module`` and return it with the slow weights of the best epoch on ``validation``.

    Args:
        module: adapter freshly initialised from ``seed``.
        training: streams to train on.
        validation: streams of the training split that select the epoch.
        readout: frozen matrices that score a chunk, without logits.
        config: see :class:`ponderttt.settings.training.TrainingConfig`.
        seed: seed of the order of streams, actions and sampled tokens.
        checkpoints: an entered :class:`Checkpoints`; training resumes from its newest one.
        progress: called with (steps done, total, loss).

    Returns:
        The trained adapter and the log, one mapping per step and per validation.
    """
    graph, slow = nnx.split(module)
    epochs = [schedule([len(s.hidden) for s in training], config, seed, e) for e in range(config.epochs)]
    windows = [window for epoch in epochs for window in epoch]
    optimiser = make_optimiser(config, len(windows))
    train_step, evaluate = _compile(graph, optimiser, config)
    fresh = nnx.merge(graph, slow).reset()
    state = TrainState(slow, optimiser.init(slow), fresh, slow, jnp.asarray(jnp.inf))
    done = 0
    log: Log = []
    if (found := checkpoints.restore(state)) is not None:
        done, state, log = found

    for step, window in _from(windows, done):
        chunks = window_chunks(training[window.stream], window.start, config.window_chunks)
        key = named_key(seed, "outer tokens", step)
        begins = jnp.asarray(window.start == 0)
        state, numbers = train_step(state, begins, chunks, readout, int(window.action), key)
        line = {name: float(value) for name, value in numbers.items()}
        log.append({"step": step + 1, "epoch": window.epoch, "action": window.action.name, **line})
        progress(step + 1, len(windows), line["loss"])
        last_of_epoch = step + 1 == len(windows) or windows[step + 1].epoch != window.epoch
        if last_of_epoch:
            state, line = _validate(state, validation, readout, evaluate, config, fresh)
            log.append({"step": step + 1, "epoch": window.epoch, **line})
        if last_of_epoch or (step + 1) % config.checkpoint_every_steps == 0:
            checkpoints.save(step + 1, state, log)
    return nnx.merge(graph, state.best_slow), log


def make_optimiser(config: TrainingConfig, total_steps: int) -> optax.GradientTransformation:
    """Return AdamW with clipping, linear warm-up and cosine decay to a tenth."""
    warmup = max(1, round(config.warmup_share * total_steps))
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, max(total_steps, warmup + 1), 0.1 * config.learning_rate
    )
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm), optax.adamw(rate, weight_decay=config.weight_decay)
    )


def _compile(
    graph: Any, optimiser: optax.GradientTransformation, config: TrainingConfig
) -> tuple[Callable[..., Any], Callable[..., WindowLoss]]:
    def loss_of(
        slow: Any, fast: Fast, begins: Any, chunks: Chunk, readout: Readout, action: Any, key: Any
    ) -> tuple[Float[Array, ""], WindowLoss]:
        module = nnx.merge(graph, slow)
        fast = entering(module, fast, begins)
        result = window_loss(module, fast, chunks, readout, action, key, config.outer_tokens)
        return result.loss / jnp.maximum(result.tokens, 1.0), result

    @jax.jit
    def train_step(
        state: TrainState, begins: Any, chunks: Chunk, readout: Readout, action: Any, key: Any
    ) -> tuple[TrainState, dict[str, Any]]:
        gradient_of = jax.value_and_grad(loss_of, has_aux=True)
        (loss, result), gradients = gradient_of(state.slow, state.fast, begins, chunks, readout, action, key)
        updates, optimiser_state = optimiser.update(gradients, state.optimiser, state.slow)
        slow = optax.apply_updates(state.slow, updates)
        frozen = result.frozen / jnp.maximum(result.tokens, 1.0)
        numbers = {"loss": loss, "loss_frozen": frozen, "grad_norm": optax.tree.norm(gradients)}
        return state._replace(slow=slow, optimiser=optimiser_state, fast=result.fast), numbers

    @jax.jit
    def evaluate(
        slow: Any, fast: Fast, begins: Any, chunks: Chunk, readout: Readout, action: Any, key: Any
    ) -> WindowLoss:
        module = nnx.merge(graph, slow)
        fast = entering(module, fast, begins)
        return window_loss(module, fast, chunks, readout, action, key, config.outer_tokens)

    return train_step, evaluate


def _validate(
    state: TrainState,
    validation: Sequence[FrozenChunks],
    readout: Readout,
    evaluate: Callable[..., WindowLoss],
    config: TrainingConfig,
    fresh: Fast,
) -> tuple[TrainState, dict[str, float]]:
    """Validate with 0 updates and with 1; the best epoch has the smallest mean loss of the two.

    The sampled tokens are the same in every epoch.
    """
    losses = {}
    for action in (Action.SKIP, Action.UPDATE_1):
        total, frozen, tokens = 0.0, 0.0, 0.0
        for stream in validation:
            fast = fresh
            for start in range(0, len(stream.hidden), config.window_chunks):
                key = named_key(0, "validation", stream.stream_id, start)
                chunks = window_chunks(stream, start, config.window_chunks)
                begins = jnp.asarray(start == 0)
                result = evaluate(state.slow, fast, begins, chunks, readout, int(action), key)
                total, frozen = total + float(result.loss), frozen + float(result.frozen)
                tokens, fast = tokens + float(result.tokens), result.fast
        losses[action] = total / tokens
    mean = jnp.asarray(0.5 * (losses[Action.SKIP] + losses[Action.UPDATE_1]))
    if mean < state.best_validation:
        state = state._replace(best_slow=state.slow, best_validation=mean)
    line = {
        "validation_loss": losses[Action.UPDATE_1],
        "validation_loss_skip": losses[Action.SKIP],
        "validation_loss_frozen": frozen / tokens,
    }
    return state, line


def _from(windows: Sequence[Window], done: int) -> Iterator[tuple[int, Window]]:
    yield from list(enumerate(windows))[done:]
