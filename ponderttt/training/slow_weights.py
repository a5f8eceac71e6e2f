"""Training of slow weights across training streams: truncated back-propagation through the loop.

Each step takes a window of consecutive chunks of one stream.  Every chunk is scored first and learned from after,
as at test time, and gradients flow through the updates inside the window; of those before it only the end is kept.  Each stream draws one action (0, 1, 2 or 4 updates) per epoch and keeps it, so that the
trained adapter is at home under all of them, SKIP included: the control "trained adapter, 0 updates" is no
adapter pushed out of its training distribution.
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
    """Everything that changes while slow weights are trained."""

    slow: Any
    optimiser: optax.OptState
    #: Of the stream under way, as it enters the next window.
    fast: Fast
    best_slow: Any
    best_validation: Float[Array, ""]


@dataclass(frozen=True)
class Window:
    """``chunks`` consecutive chunks of a stream, from ``start``; the unit of a training step."""

    epoch: int
    stream: int
    start: int
    action: Action


class WindowLoss(NamedTuple):
    """Sums over the sampled tokens of a window; nats."""

    loss: Float[Array, ""]
    #: Of the frozen backbone on the same tokens.
    frozen: Float[Array, ""]
    tokens: Float[Array, ""]
    fast: Fast


def schedule(lengths: Sequence[int], config: TrainingConfig, seed: int, epoch: int) -> list[Window]:
    """The windows of one epoch: streams in a random order, each cut from its start, one action for each."""
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
    """Score-first loss of a window.

    Args:
        module: the slow weights.
        fast: fast weights as they enter the window.
        chunks: with a leading axis of W chunks; a chunk without real tokens counts nothing and teaches nothing.
        readout: frozen vocabulary projection, without logits; and the frozen suffix where the module reads from the split.
        action: index of the action after each chunk.
        key: chooses the tokens that the outer loss samples.
        outer_tokens: how many of each chunk, or ``None`` for all.
    """

    def one_chunk(fast: Fast, inputs: tuple[Chunk, Key[Array, ""]]) -> tuple[Fast, tuple[Any, ...]]:
        chunk, key = inputs
        length = chunk.hidden.shape[0]
        positions = jnp.arange(length)
        if outer_tokens is not None and outer_tokens < length:
            positions = jnp.sort(jax.random.permutation(key, length)[:outer_tokens])
        nll = module.score_positions(fast, chunk, readout, positions)

        def learn(steps: int) -> Callable[[Fast], Fast]:
            return (lambda f: module.adapt(f, chunk, readout, steps).fast) if steps else (lambda f: f)

        # Outside of vmap a switch runs the chosen branch alone.
        after = jax.lax.switch(action, [learn(a.steps) for a in Action], fast)
        real = jnp.any(chunk.mask)
        after = jax.tree.map(lambda new, old: jnp.where(real, new, old), after, fast)
        return after, (jnp.sum(nll), jnp.sum(chunk.nll_frozen[positions]), jnp.sum(chunk.mask[positions]))

    keys = jax.random.split(key, chunks.hidden.shape[0])
    fast, (losses, frozen, counts) = jax.lax.scan(one_chunk, fast, (chunks, keys))
    return WindowLoss(jnp.sum(losses), jnp.sum(frozen), jnp.sum(counts).astype(jnp.float32), fast)


def entering(module: FastWeights, carried: Fast, begins: Bool[Array, ""]) -> Fast:
    """The fast weights with which a window starts: fresh at the start of a stream, else those carried so far.

    Carried ones enter as the learned start plus a constant, so that every window trains the start (the Jacobian of
    the windows before counts as the identity), while their value stays what it was.
    """

    def leaf(first: Array, now: Array) -> Array:
        if jnp.issubdtype(first.dtype, jnp.floating):
            now = first + jax.lax.stop_gradient(now - first)
        return jnp.where(begins, first, now)

    return jax.tree.map(leaf, module.reset(), carried)


def window_chunks(stream: FrozenChunks, start: int, size: int) -> Chunk:
    """Chunks ``start … start+size−1`` of a stream; beyond its end, chunks that are masked altogether."""
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
        module: freshly initialised from ``seed``.
        training: streams to learn from.
        validation: streams of the training split that choose the epoch.
        readout: the frozen matrices that a chunk is read with, never changed; without logits.
        config: see :class:`ponderttt.settings.training.TrainingConfig`.
        seed: order of streams, actions and sampled tokens.
        checkpoints: an entered :class:`Checkpoints`; training goes on from its newest one.
        progress: called with (steps done, steps in all, loss).

    Returns:
        The trained module and the log, one mapping for each step and each validation.
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
    """AdamW with clipping, linear warm-up and cosine decay to a tenth."""
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
    """Losses without updates and with one; the best epoch is the one with the smallest mean of the two.

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
