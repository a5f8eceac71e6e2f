"""The one loop: score, observe, decide, adapt, record.

This is the only place that orders scoring and learning.  Under ``score_first`` the order for chunk t is

    score chunk t with the current fast weights    →  the committed loss of chunk t
    observe (features of chunks ≤ t, budget left)  →  decide the action
    adapt on chunk t (0, 1, 2 or 4 updates)        →  fast weights for chunk t+1
    record

so no token is scored by weights that have seen its label.  After the last chunk of a stream nothing is left to help, so
the action is SKIP, whatever the policy says.  Arms run side by side and share the frozen vocabulary
projection of a chunk.  Arms of one module with the same past actions have the same fast weights; equal work is done once
and charged to each.  Streams of a group advance together and are gathered by action before they adapt, so an action that
is not taken costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.costs import Measured
from ponderttt.fast_weights.base import Adaptation, Fast
from ponderttt.features.history import remember
from ponderttt.loop.arm import Arm, ArmState, Decided, Past, decide, initial_state
from ponderttt.loop.page import Group, Page
from ponderttt.loop.programs import ModulePrograms
from ponderttt.policies.base import Decision
from ponderttt.records.step import Step


class Outcome(NamedTuple):
    """What happened at one chunk; arrays have one entry per active stream."""

    fast: Fast
    policy: Any
    nll: Float[np.ndarray, "B T"]
    loss: Float[np.ndarray, " B"]
    actions: list[Action]
    steps: Any
    reconstruction: Float[np.ndarray, " B"]
    decided: Decided
    flops: Float[np.ndarray, " B"]
    seconds: Float[np.ndarray, " B"]


def take(tree: Any, index: Sequence[int], size: int) -> Any:
    """Return the streams ``index`` of a group of ``size``; the tree itself if those are all."""
    if len(index) == size:
        return tree
    # Slices are copied as blocks; gathering the logits would take as long as an update.
    if len(index) == 1:
        return jax.tree.map(lambda leaf: leaf[index[0] : index[0] + 1], tree)
    return jax.tree.map(lambda leaf: jnp.concatenate([leaf[i : i + 1] for i in index]), tree)


def put(tree: Any, index: Sequence[int], size: int, part: Any) -> Any:
    """Put the streams ``index`` back into a group of ``size``; the inverse of :func:`take`."""
    if len(index) == size:
        return part
    rows = np.asarray(index)
    return jax.tree.map(lambda leaf, new: jnp.asarray(leaf).at[rows].set(new), tree, part)


def run_streams(arms: Sequence[Arm], group: Group) -> dict[str, list[Step]]:
    """Run arms, each with its own name, over a group of streams that advance together.

    Returns:
        The steps of each arm, ordered by stream and chunk.
    """
    steps: dict[str, list[Step]] = {arm.name: [] for arm in arms}
    for name, step in iterate_streams(arms, group):
        steps[name].append(step)
    for rows in steps.values():
        rows.sort(key=lambda row: (row.stream_id, row.chunk_index))
    return steps


def iterate_streams(arms: Sequence[Arm], group: Group) -> Iterator[tuple[str, Step]]:
    """Do the same as :func:`run_streams`, and yield (arm, step) as soon as a chunk is done."""
    states = {arm.name: initial_state(arm, len(group.streams)) for arm in arms}
    for t in range(len(group)):
        yield from advance(arms, states, group, t)


def advance(
    arms: Sequence[Arm], states: Mapping[str, ArmState], group: Group, t: int
) -> Iterator[tuple[str, Step]]:
    """Run chunk t of the streams that have one, for every arm, and yield each (arm, step).

    ``states`` are the states after chunk t−1; they become those after chunk t.
    """
    size, page = len(group.streams), group.page(t)
    for arm in arms:
        state = states[arm.name]
        mine = ArmState(
            take(state.fast, page.active, size),
            take(state.policy, page.active, size),
            state.spent[page.active],
            [state.past[b] for b in page.active],
            [state.history[b] for b in page.active],
        )
        outcome = _PROTOCOLS[arm.protocol](arm, mine, page)
        state.fast = put(state.fast, page.active, size, outcome.fast)
        state.policy = put(state.policy, page.active, size, outcome.policy)
        for i, b in enumerate(page.active):
            cost = arm.policy.costs[outcome.actions[i]]
            state.spent[b] += cost
            if outcome.actions[i].steps:
                kept = kept_shares(outcome.decided.decision)
                lesson = arm.lesson_name if kept is None else f"{arm.lesson_name}*{kept[i]!r}"
                state.past[b] = (*state.past[b], (lesson, t, int(outcome.actions[i])))
            state.history[b] = remember(
                state.history[b],
                loss=float(outcome.loss[i]),
                loss_frozen=float(page.streams[i].loss_frozen[t]),
                reconstruction=float(outcome.reconstruction[i]),
                action=int(outcome.actions[i]),
                cost=cost,
            )
            yield arm.name, _step(arm, outcome, i, page)
    group.close(t)


def _score_first(arm: Arm, state: ArmState, page: Page) -> Outcome:
    programs, past = arm.programs, tuple(state.past)
    fast = programs.trimmed(state.fast, page.t)
    scored = score_once(programs, past, fast, page)
    nll = np.asarray(scored.value.nll)
    loss = _mean_loss(nll, page)
    decided = decide(arm, state, page, loss)
    actions = [
        Action.SKIP if page.t + 1 == len(stream.hidden) else Action(int(chosen))
        for stream, chosen in zip(page.streams, np.asarray(decided.decision.action), strict=True)
    ]
    kept = kept_shares(decided.decision)
    adapted = adapt_once(arm, past, fast, actions, page, kept)
    adapted = adapted._replace(fast=follow(programs, state.fast, adapted.fast, scored))
    return _outcome(nll, loss, decided, adapted, decided.reconstruction, scored, page)


def _transductive(arm: Arm, state: ArmState, page: Page) -> Outcome:
    """Learn from chunk t first, then score it: a deliberate leak, which shows how large such gains are."""
    decided = decide(arm, state, page, None)
    actions = [Action(int(a)) for a in np.asarray(decided.decision.action)]
    adapted = adapt(arm, arm.programs.trimmed(state.fast, page.t), actions, page)
    scored = score(arm.programs, adapted.fast, page)
    nll = np.asarray(scored.value.nll)
    adapted = adapted._replace(fast=follow(arm.programs, state.fast, adapted.fast, scored))
    return _outcome(nll, _mean_loss(nll, page), decided, adapted, adapted.inner_loss, scored, page)


def _in_chunk(arm: Arm, state: ArmState, page: Page) -> Outcome:
    """Choose the action before the chunk is read; UPDATE_1 reads and learns in one causal pass."""
    decided = decide(arm, state, page, None)
    actions = [Action(int(a)) for a in np.asarray(decided.decision.action)]
    if set(actions) != {Action.UPDATE_1}:
        raise ValueError(
            f"{arm.name}: the action of the protocol in_chunk must be UPDATE_1, since it makes one pass"
        )
    programs = arm.programs
    run = programs.in_chunk(programs.slow, state.fast, page.chunk(programs), page.readout(programs))
    nll, adaptation = np.asarray(run.value[0]), run.value[1]
    adapted = Adapted.of(adaptation, actions)
    return _outcome(nll, _mean_loss(nll, page), decided, adapted, adapted.inner_loss, run, page)


_PROTOCOLS: Mapping[str, Callable[[Arm, ArmState, Page], Outcome]] = {
    "score_first": _score_first,
    "in_chunk": _in_chunk,
    "transductive": _transductive,
}


class Adapted(NamedTuple):
    """The outcome of learning from a chunk, for B streams."""

    fast: Fast
    actions: list[Action]
    steps: Any
    inner_loss: Any
    flops: Any
    seconds: Any

    @classmethod
    def of(cls, adaptation: Adaptation, actions: list[Action]) -> Adapted:
        """Return the outcome of a program that learns while it reads; reading is charged for both."""
        nothing = np.zeros(len(actions))
        return cls(
            adaptation.fast,
            actions,
            np.asarray(adaptation.steps),
            np.asarray(adaptation.inner_loss),
            nothing,
            nothing,
        )


def score(programs: ModulePrograms, fast: Fast, page: Page) -> Measured:
    """Return a page as the current fast weights score it: :class:`Scored` with the nll [B, T]."""
    return programs.score(programs.slow, fast, page.chunk(programs), page.readout(programs))


def score_once(programs: ModulePrograms, past: tuple[Past, ...], fast: Fast, page: Page) -> Measured:
    """Call :func:`score` once for all arms of a module whose fast weights have the same past."""
    return page.once((id(programs), past), lambda: score(programs, fast, page))


def follow(programs: ModulePrograms, before: Fast, after: Fast, scored: Measured) -> Fast:
    """Return the fast weights with which the next chunk is read; ``before`` scored this one, and is not trimmed."""
    return programs.follow(before, after, scored.value.fresh) if programs.follows else after


def adapt_once(
    arm: Arm,
    past: tuple[Past, ...],
    fast: Fast,
    actions: list[Action],
    page: Page,
    kept: tuple[float, ...] | None = None,
) -> Adapted:
    """Call :func:`adapt` once for all arms of a module with the same past, lesson and actions."""
    key = (id(arm.programs), past, arm.lesson_name, tuple(actions), kept)
    return page.once(key, lambda: adapt(arm, fast, actions, page, kept))


def kept_shares(decision: Decision) -> tuple[float, ...] | None:
    """Return the fraction of each stream's update to keep; None if all are 1."""
    shares = np.atleast_1d(np.asarray(decision.scale, np.float64))
    return None if (shares == 1.0).all() else tuple(shares.tolist())


def adapt(
    arm: Arm, fast: Fast, actions: list[Action], page: Page, kept: tuple[float, ...] | None = None
) -> Adapted:
    """Gather the streams of each action, run its compiled program, and scatter the results; SKIP runs nothing.

    ``kept`` is the fraction of each stream's update to keep; the update is made and charged in full.
    """
    size = len(actions)
    steps, inner_loss = np.zeros(size, int), np.full(size, np.nan)
    flops, seconds = np.zeros(size), np.zeros(size)
    for action, program in arm.programs.adapt.items():
        bucket = [i for i, chosen in enumerate(actions) if chosen is action]
        if not bucket:
            continue
        chunk, readout = page.lesson(arm.programs, arm.lesson, arm.seed)
        if readout.logits is not None:
            readout = readout._replace(logits=take(readout.logits, bucket, size))
        before = take(fast, bucket, size)
        ran = program(arm.programs.slow, before, take(chunk, bucket, size), readout)
        after = ran.value.fast
        if arm.lesson == "sign_flipped":
            after = arm.programs.flipped(before, after)
        if kept is not None:
            shares = jnp.asarray([kept[i] for i in bucket], jnp.float32)
            after = arm.programs.blended(before, after, shares)
        fast = put(fast, bucket, size, after)
        steps[bucket], inner_loss[bucket] = ran.value.steps, ran.value.inner_loss
        flops[bucket], seconds[bucket] = ran.flops / len(bucket), ran.seconds / len(bucket)
    return Adapted(fast, actions, steps, inner_loss, flops, seconds)


def _outcome(
    nll: Float[np.ndarray, "B T"],
    loss: Float[np.ndarray, " B"],
    decided: Decided,
    adapted: Adapted,
    reconstruction: Float[np.ndarray, " B"],
    scored: Measured,
    page: Page,
) -> Outcome:
    return Outcome(
        adapted.fast,
        decided.decision.state,
        nll,
        loss,
        adapted.actions,
        adapted.steps,
        reconstruction,
        decided,
        adapted.flops + scored.flops / page.size + decided.cost.flops,
        adapted.seconds + scored.seconds / page.size + decided.cost.seconds,
    )


def _mean_loss(nll: Float[np.ndarray, "B T"], page: Page) -> Float[np.ndarray, " B"]:
    """Return the loss per real token of each stream's chunk, nats; every chunk has at least one real token."""
    counts = np.stack([stream.mask[page.t] for stream in page.streams]).sum(-1)
    means: Float[np.ndarray, " B"] = nll.astype(np.float64).sum(-1) / counts
    return means


def _optional(value: float | np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None


def _step(arm: Arm, outcome: Outcome, i: int, page: Page) -> Step:
    stream, t = page.streams[i], page.t
    frozen = page.frozen_cost(arm.programs, arm.observes, i)
    decision, features = outcome.decided.decision, outcome.decided.features[i]
    cuts = np.asarray(decision.cuts[i])
    return Step(
        stream_id=stream.stream_id,
        chunk_index=t,
        n_tokens=int(stream.mask[t].sum()),
        n_bytes=int(stream.n_bytes[t]),
        loss=float(outcome.loss[i]),
        loss_frozen=float(stream.loss_frozen[t]),
        action=outcome.actions[i],
        steps=int(outcome.steps[i]),
        flops=frozen.flops + float(outcome.flops[i]),
        seconds=frozen.seconds + float(outcome.seconds[i]),
        reconstruction_loss=_optional(outcome.reconstruction[i]),
        gate_score=_optional(np.asarray(decision.score)[i]),
        gate_rank=_optional(np.asarray(decision.rank)[i]),
        gate_cuts=tuple(cuts.tolist()) if np.isfinite(cuts).all() else None,
        budget_left=_optional(outcome.decided.budget_left[i]),
        features=tuple(features.tolist()) if np.isfinite(features).all() else None,
        nll=outcome.nll[i],
    )
