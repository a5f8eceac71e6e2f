"""Oracles: action sequences found by looking at losses that no policy may see, for the loop to replay.

``greedy_oracle`` looks one chunk ahead; since actions change what later ones are worth it is *not* an upper bound.
``exhaustive_oracle`` tries every sequence of a short stream, so that nothing of the same total cost has a lower loss.
Both spend the budget of the stream exactly, as :class:`ponderttt.policies.rules.Random` and every rule do.  The search reads
through the pages of the loop, and shares with its arms whatever these do too; its own cost is nobody's.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.fast_weights.base import Fast
from ponderttt.loop.arm import Arm, Past, initial_state
from ponderttt.loop.page import Group
from ponderttt.loop.stream import adapt, adapt_once, score_once
from ponderttt.policies.budget import BudgetTables, next_log_weights, stream_units

#: Sequences grow exponentially with chunks.
EXHAUSTIVE_CHUNKS = 6


class Found(NamedTuple):
    """The actions of one stream of N chunks."""

    actions: tuple[Action, ...]
    #: Loss of the next chunk after SKIP minus after UPDATE_1, UPDATE_2, UPDATE_4, along the way; nats per token.
    look_ahead: tuple[tuple[float, ...] | None, ...]


class _Walk:
    """One stream's fast weights after any sequence of actions."""

    def __init__(self, arm: Arm, group: Group) -> None:
        if len(group.streams) != 1:
            raise ValueError("an oracle searches one stream at a time")
        self.arm, self.group, self.stream = arm, group, group.streams[0]
        self.start: Fast = initial_state(arm, 1).fast

    def loss(self, t: int, past: Past, fast: Fast) -> float:
        """Total loss of chunk t, nats."""
        scored = score_once(self.arm.programs, (past,), fast, self.group.page(t))
        return float(np.asarray(scored.value, np.float64).sum())

    def learn(self, t: int, past: Past, fast: Fast, action: Action) -> tuple[Past, Fast]:
        """Fast weights after an action on chunk t."""
        if not action.steps:
            return past, fast
        adapted = adapt_once(self.arm, (past,), fast, [action], self.group.page(t))
        return (*past, (self.arm.lesson_name, t, int(action))), adapted.fast


def price_of_budget(
    gains: Float[np.ndarray, " A"], costs: Float[np.ndarray, " A"], mean_cost: float
) -> float:
    """What one unit of cost is worth where every chunk offers ``gains`` for ``costs`` and ``mean_cost`` is spent.

    The slope, at ``mean_cost``, of the least concave function above the points; where it has a corner, the middle of both
    slopes; never below zero.
    """
    below, above = costs < mean_cost, costs > mean_cost
    value = max(
        [
            *gains[costs == mean_cost],
            *(
                gains[i] + (gains[j] - gains[i]) * (mean_cost - costs[i]) / (costs[j] - costs[i])
                for i in np.flatnonzero(below)
                for j in np.flatnonzero(above)
            ),
        ],
        default=0.0,
    )
    left = min(((value - gains[below]) / (mean_cost - costs[below])).tolist(), default=0.0)
    right = max(((gains[above] - value) / (costs[above] - mean_cost)).tolist(), default=0.0)
    return max(0.0, (left + right) / 2)


def greedy_oracle(arm: Arm, group: Group, tables: BudgetTables) -> Found:
    """At each chunk the action whose gain on the next chunk, less the price of its cost, is largest.

    The price is :func:`price_of_budget` of the gains seen so far in this stream, at the mean cost that is left for the chunks
    that another one follows.

    Args:
        arm: its module is searched; its policy is not asked.
        group: of the one stream.
        tables: of the budget.
    """
    walk, costs = _Walk(arm, group), np.asarray(tables.units, np.float64)
    length = len(walk.stream.hidden)
    past: Past = ()
    fast, budget = walk.start, int(stream_units(tables, length))
    actions: list[Action] = []
    seen: list[Float[np.ndarray, " A"]] = []
    look_ahead: list[tuple[float, ...] | None] = []
    for t in range(length):
        gains = np.zeros(len(Action))
        after = [walk.learn(t, past, fast, action) if t + 1 < length else (past, fast) for action in Action]
        if t + 1 < length:
            tokens = int(walk.stream.mask[t + 1].sum())
            losses = np.array([walk.loss(t + 1, *node) for node in after]) / tokens
            gains = losses[Action.SKIP] - losses
            seen.append(gains)
        look_ahead.append(tuple(gains[1:].tolist()) if t + 1 < length else None)
        mean_gains = np.mean(seen, axis=0) if seen else gains
        # What is spent on the last chunk buys nothing, so the rest competes for the chunks before it.
        price = price_of_budget(mean_gains, costs, budget / max(1, length - t - 1))
        allowed = _allowed(tables, budget, length - t - 1)
        chosen = Action(int(np.argmax(np.where(allowed, gains - price * costs, -np.inf))))
        actions.append(chosen)
        budget -= int(costs[chosen])
        past, fast = after[chosen]
        group.page(t).release()
    return Found(tuple(actions), tuple(look_ahead))


def exhaustive_oracle(arm: Arm, group: Group, tables: BudgetTables) -> Found:
    """The sequence of lowest total loss among all that spend the budget of the stream exactly.

    Raises:
        PonderTTTError: the stream has more than ``EXHAUSTIVE_CHUNKS`` chunks.
    """
    walk, units = _Walk(arm, group), np.asarray(tables.units)
    length = len(walk.stream.hidden)
    if length > EXHAUSTIVE_CHUNKS:
        raise PonderTTTError(
            f"exhaustive_oracle: {walk.stream.stream_id} has {length} chunks, and sequences of more than "
            f"{EXHAUSTIVE_CHUNKS} are too many; lower chunks_per_stream or leave the method out of grid.methods"
        )

    def best(t: int, past: Past, fast: Fast, budget: int) -> tuple[float, tuple[Action, ...]]:
        """Least total loss of chunks t, t+1, … and the actions that lead to it."""
        here, possible = walk.loss(t, past, fast), _allowed(tables, budget, length - t - 1)
        allowed = [action for action in Action if possible[action]]
        if t + 1 == length:
            # Nothing is read after the last chunk, so its action matters for the budget alone.
            return here, (allowed[0],)
        # Not kept: there are too many of these.
        branches = []
        for action in allowed:
            node = _learn_once(walk, t, past, fast, action)
            rest, actions = best(t + 1, *node, budget - int(units[action]))
            branches.append((rest, (action, *actions)))
        total, actions = min(branches, key=lambda branch: branch[0])
        return here + total, actions

    _, actions = best(0, (), walk.start, int(stream_units(tables, length)))
    return Found(actions, (None,) * length)


def _learn_once(walk: _Walk, t: int, past: Past, fast: Fast, action: Action) -> tuple[Past, Fast]:
    if not action.steps:
        return past, fast
    adapted = adapt(walk.arm, fast, [action], walk.group.page(t))
    return (*past, (walk.arm.lesson_name, t, int(action))), adapted.fast


def _allowed(tables: BudgetTables, units: int, chunks_left: int) -> Bool[np.ndarray, " A"]:
    """The actions after which the rest can still be spent exactly."""
    weights = next_log_weights(tables, jnp.asarray(units), jnp.asarray(chunks_left))
    allowed: Bool[np.ndarray, " A"] = np.isfinite(np.asarray(weights))
    return allowed
