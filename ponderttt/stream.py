"""The one loop: score, observe, decide, adapt, record.

This is the only place that orders scoring and learning.  Under ``score_first`` the order for chunk t is

    score chunk t with the fast weights as they stand  →  the committed loss of chunk t
    observe (features of chunks ≤ t, budget left)      →  decide the action
    adapt on chunk t (0, 1, 2 or 4 updates)            →  fast weights for chunk t+1
    record

so that no token is scored by weights that have seen its label.  Several arms read the same chunk side by side and
share its frozen vocabulary projection; each has fast weights and a policy state of its own.  Streams of a group
advance together, and are gathered by action before they adapt: an action not taken costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ponderttt.actions import Action
from ponderttt.costs import Measured, Program
from ponderttt.fast_weights.base import Adaptation, Chunk, Fast, FastWeights, Readout, as_chunk
from ponderttt.models.losses import frozen_logits
from ponderttt.policies.base import Decision, Observation, Policy
from ponderttt.seeds import named_key
from ponderttt.stream_data import Step, StreamLike

#: The frozen vocabulary projection of B chunks; compiled once per shape, whatever the number of arms.
_PROJECT = Program(jax.vmap(frozen_logits, in_axes=(0, None)))

Protocol = Literal["score_first", "in_chunk", "transductive"]


class ModulePrograms:
    """The compiled programs of one fast-weight module, for B streams at once; slow weights are an argument."""

    def __init__(self, module: FastWeights) -> None:
        graph, self.slow = nnx.split(module)
        self.reads_in_chunk = module.reads_in_chunk

        def batched(method: str, *static: Any) -> Callable[..., Any]:
            def run(slow: Any, fast: Fast, chunk: Chunk, readout: Readout) -> Any:
                bound = getattr(nnx.merge(graph, slow), method)
                one = lambda f, c, r: bound(f, c, r, *static)  # noqa: E731
                # Streams share the unembedding and have their own logits.
                axes: Any = Readout(None, 0, None)  # type: ignore[arg-type]
                return jax.vmap(one, in_axes=(0, 0, axes))(fast, chunk, readout)

            return run

        self.reset = Program(lambda slow: nnx.merge(graph, slow).reset())
        self.score = Program(batched("score"))
        self.in_chunk = Program(batched("score_and_adapt_in_chunk"))
        self.adapt = {action: Program(batched("adapt", action.steps)) for action in Action if action.steps}
        self._basis_of = (
            None
            if module.basis_is_fast
            else jax.jit(lambda slow, unembedding: nnx.merge(graph, slow).vocabulary_basis(None, unembedding))
        )
        self._basis: Float[Array, "V R"] | None = None

    def slow_basis(self, unembedding: Float[Array, "V D"]) -> Float[Array, "V R"] | None:
        """``E·P`` where P is slow: one product for all streams, made at the first call; ``None`` where P is fast."""
        if self._basis is None and self._basis_of is not None:
            self._basis = self._basis_of(self.slow, unembedding)
        return self._basis


@dataclass
class Arm:
    """One line of the table while it runs: a module, a policy, a protocol and a seed."""

    name: str
    programs: ModulePrograms
    policy: Policy
    protocol: Protocol
    seed: int
    #: Compiled once, used for every stream.
    decide: Callable[..., Decision] = field(init=False)

    def __post_init__(self) -> None:
        if self.protocol == "in_chunk" and not self.programs.reads_in_chunk:
            raise ValueError(f"{self.name}: these fast weights have no causal in-chunk read")
        self.decide = jax.jit(jax.vmap(type(self.policy).decide, in_axes=(None, 0, 0, 0)))


class ArmState(NamedTuple):
    """Of the B streams of a group."""

    fast: Fast
    policy: Any
    #: Nominal cost spent so far.
    spent: Float[np.ndarray, " B"]


class Outcome(NamedTuple):
    """Of one chunk of the active streams; every array has one entry for each."""

    fast: Fast
    policy: Any
    nll: Float[np.ndarray, "B T"]
    loss: Float[np.ndarray, " B"]
    actions: list[Action]
    steps: Any
    inner_loss: Float[np.ndarray, " B"]
    gate_score: Float[np.ndarray, " B"]
    budget_left: Float[np.ndarray, " B"]
    flops: Float[np.ndarray, " B"]
    seconds: Float[np.ndarray, " B"]


def take(tree: Any, index: Sequence[int], size: int) -> Any:
    """The streams ``index`` of a group of ``size``; the whole tree untouched if that is all of them."""
    if len(index) == size:
        return tree
    rows = np.asarray(index)
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def put(tree: Any, index: Sequence[int], size: int, part: Any) -> Any:
    """The inverse of :func:`take`."""
    if len(index) == size:
        return part
    rows = np.asarray(index)
    return jax.tree.map(lambda leaf, new: jnp.asarray(leaf).at[rows].set(new), tree, part)


def run_streams(
    arms: Sequence[Arm], streams: Sequence[StreamLike], unembedding: Float[Array, "V D"]
) -> dict[str, list[Step]]:
    """Run every arm over a group of streams that advance together.

    Args:
        arms: with distinct names.
        streams: a group; they may have different numbers of chunks.
        unembedding: the frozen vocabulary projection.

    Returns:
        For each arm its steps, by stream and chunk.
    """
    steps: dict[str, list[Step]] = {arm.name: [] for arm in arms}
    for name, step in iterate_streams(arms, streams, unembedding):
        steps[name].append(step)
    for rows in steps.values():
        rows.sort(key=lambda row: (row.stream_id, row.chunk_index))
    return steps


def iterate_streams(
    arms: Sequence[Arm], streams: Sequence[StreamLike], unembedding: Float[Array, "V D"]
) -> Iterator[tuple[str, Step]]:
    """:func:`run_streams`, one (arm, step) at a time as chunks are read."""
    states = {arm.name: _initial_state(arm, len(streams)) for arm in arms}
    for t in range(max(len(stream.hidden) for stream in streams)):
        active = [b for b, stream in enumerate(streams) if t < len(stream.hidden)]
        reading = [streams[b] for b in active]
        chunk = _chunk(reading, t)
        projected = _PROJECT(chunk.hidden, unembedding)
        for arm in arms:
            readout = Readout(unembedding, projected.value, arm.programs.slow_basis(unembedding))
            state = states[arm.name]
            mine = ArmState(*(take(part, active, len(streams)) for part in state))
            outcome = _PROTOCOLS[arm.protocol](arm, mine, reading, t, chunk, readout)
            spent = np.asarray(mine.spent) + np.array([action.nominal_cost for action in outcome.actions])
            updated = ArmState(outcome.fast, outcome.policy, spent)
            states[arm.name] = ArmState(
                *(put(old, active, len(streams), new) for old, new in zip(state, updated, strict=True))
            )
            for i, stream in enumerate(reading):
                yield arm.name, _step(outcome, i, stream, t, projected, len(active))


def _score_first(
    arm: Arm, state: ArmState, streams: Sequence[StreamLike], t: int, chunk: Chunk, readout: Readout
) -> Outcome:
    scored = arm.programs.score(arm.programs.slow, state.fast, chunk, readout)
    nll = np.asarray(scored.value)
    loss = _mean_loss(nll, chunk)
    decision, observed = _decide(arm, state, streams, t, loss)
    adapted = _adapt(arm, state.fast, decision, chunk, readout)
    return _outcome(nll, loss, decision, observed, adapted, scored)


def _transductive(
    arm: Arm, state: ArmState, streams: Sequence[StreamLike], t: int, chunk: Chunk, readout: Readout
) -> Outcome:
    """Learns from chunk t first and then scores it: a planted leak, kept to show how large such numbers get."""
    decision, observed = _decide(arm, state, streams, t, None)
    adapted = _adapt(arm, state.fast, decision, chunk, readout)
    scored = arm.programs.score(arm.programs.slow, adapted.fast, chunk, readout)
    nll = np.asarray(scored.value)
    return _outcome(nll, _mean_loss(nll, chunk), decision, observed, adapted, scored)


def _in_chunk(
    arm: Arm, state: ArmState, streams: Sequence[StreamLike], t: int, chunk: Chunk, readout: Readout
) -> Outcome:
    """The action is chosen before the chunk is read; UPDATE_1 reads and learns in one causal pass."""
    decision, observed = _decide(arm, state, streams, t, None)
    actions = [Action(int(a)) for a in np.asarray(decision.action)]
    if set(actions) != {Action.UPDATE_1}:
        raise ValueError(f"{arm.name}: the protocol in_chunk makes one pass, so its action is UPDATE_1")
    run = arm.programs.in_chunk(arm.programs.slow, state.fast, chunk, readout)
    nll, adaptation = np.asarray(run.value[0]), run.value[1]
    adapted = _Adapted.of(adaptation, actions)
    return _outcome(nll, _mean_loss(nll, chunk), decision, observed, adapted, run)


_PROTOCOLS: Mapping[str, Callable[..., Outcome]] = {
    "score_first": _score_first,
    "in_chunk": _in_chunk,
    "transductive": _transductive,
}


class _Adapted(NamedTuple):
    fast: Fast
    actions: list[Action]
    steps: Any
    inner_loss: Any
    flops: Any
    seconds: Any

    @classmethod
    def of(cls, adaptation: Adaptation, actions: list[Action]) -> _Adapted:
        nothing = np.zeros(len(actions))
        return cls(
            adaptation.fast,
            actions,
            np.asarray(adaptation.steps),
            np.asarray(adaptation.inner_loss),
            nothing,
            nothing,
        )


def _adapt(arm: Arm, fast: Fast, decision: Decision, chunk: Chunk, readout: Readout) -> _Adapted:
    """Gather the streams of each action, run its compiled program, scatter back; SKIP runs nothing."""
    actions = [Action(int(a)) for a in np.asarray(decision.action)]
    size = len(actions)
    steps, inner_loss = np.zeros(size, int), np.full(size, np.nan)
    flops, seconds = np.zeros(size), np.zeros(size)
    for action, program in arm.programs.adapt.items():
        bucket = [i for i, chosen in enumerate(actions) if chosen is action]
        if not bucket:
            continue
        part = readout._replace(logits=take(readout.logits, bucket, size))
        ran = program(arm.programs.slow, take(fast, bucket, size), take(chunk, bucket, size), part)
        fast = put(fast, bucket, size, ran.value.fast)
        steps[bucket], inner_loss[bucket] = ran.value.steps, ran.value.inner_loss
        flops[bucket], seconds[bucket] = ran.flops / len(bucket), ran.seconds / len(bucket)
    return _Adapted(fast, actions, steps, inner_loss, flops, seconds)


def _decide(
    arm: Arm, state: ArmState, streams: Sequence[StreamLike], t: int, loss: Float[np.ndarray, " B"] | None
) -> tuple[Decision, Float[np.ndarray, " B"]]:
    """Ask the policy; without a ``loss`` chunk t has not been read yet, and nothing of it is shown."""
    unread = np.full(len(streams), np.nan)
    frozen = unread if loss is None else np.array([stream.loss_frozen[t] for stream in streams])
    entropy = unread if loss is None else np.array([s.entropy[t][s.mask[t]].mean() for s in streams])
    lengths = np.array([len(stream.hidden) for stream in streams])
    budget = np.inf if arm.policy.budget is None else arm.policy.budget
    left = (budget * lengths - np.asarray(state.spent)).astype(np.float32)
    observation = Observation(
        chunk_index=jnp.full(len(streams), t),
        chunks_left=jnp.asarray(lengths - t - 1),
        loss=jnp.asarray(unread if loss is None else loss, jnp.float32),
        loss_frozen=jnp.asarray(frozen, jnp.float32),
        entropy=jnp.asarray(entropy, jnp.float32),
        budget_left=jnp.asarray(left),
    )
    keys = jnp.stack([named_key(arm.seed, "policy", stream.stream_id, t) for stream in streams])
    return arm.decide(arm.policy.params, state.policy, observation, keys), left


def _outcome(
    nll: Float[np.ndarray, "B T"],
    loss: Float[np.ndarray, " B"],
    decision: Decision,
    budget_left: Float[np.ndarray, " B"],
    adapted: _Adapted,
    scored: Measured,
) -> Outcome:
    size = len(loss)
    return Outcome(
        adapted.fast,
        decision.state,
        nll,
        loss,
        adapted.actions,
        adapted.steps,
        adapted.inner_loss,
        np.asarray(decision.score),
        budget_left,
        adapted.flops + scored.flops / size,
        adapted.seconds + scored.seconds / size,
    )


def _initial_state(arm: Arm, size: int) -> ArmState:
    repeat = lambda tree: jax.tree.map(lambda leaf: jnp.stack([leaf] * size), tree)  # noqa: E731
    fast = arm.programs.reset(arm.programs.slow).value
    return ArmState(repeat(fast), repeat(arm.policy.init()), np.zeros(size))


def _chunk(streams: Sequence[StreamLike], t: int) -> Chunk:
    return as_chunk({name: np.stack([getattr(s, name)[t] for s in streams]) for name in Chunk._fields})


def _mean_loss(nll: Float[np.ndarray, "B T"], chunk: Chunk) -> Float[np.ndarray, " B"]:
    """Nats per real token of each stream's chunk; chunks without a real token do not exist."""
    totals, counts = nll.astype(np.float64).sum(-1), np.asarray(chunk.mask).sum(-1)
    return totals / counts


def _optional(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _step(outcome: Outcome, i: int, stream: StreamLike, t: int, projected: Measured, size: int) -> Step:
    return Step(
        stream_id=stream.stream_id,
        chunk_index=t,
        n_tokens=int(stream.mask[t].sum()),
        n_bytes=int(stream.n_bytes[t]),
        loss=float(outcome.loss[i]),
        loss_frozen=float(stream.loss_frozen[t]),
        action=outcome.actions[i],
        steps=int(outcome.steps[i]),
        flops=float(stream.flops[t] + projected.flops / size + outcome.flops[i]),
        # The shared projection is charged in full to every arm: alone, each would have had to make it.
        seconds=float(stream.seconds[t] + projected.seconds / size + outcome.seconds[i]),
        reconstruction_loss=_optional(outcome.inner_loss[i]),
        gate_score=_optional(outcome.gate_score[i]),
        budget_left=_optional(outcome.budget_left[i]),
        nll=outcome.nll[i],
    )
