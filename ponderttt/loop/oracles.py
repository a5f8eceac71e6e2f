"""Oracles: they find action sequences by looking at later losses; the loop replays the sequences.

``greedy_oracle`` looks one chunk ahead.  It is *not* an upper bound, since an action changes what later ones gain.
``exhaustive_oracle`` tries every sequence of a short stream, so no sequence of the same total cost has a lower loss.
Both spend the stream's budget exactly, as all rules with a budget do.  The search uses the pages of the loop and shares
their computations; its cost is not charged.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from ponderttt.actions import Action
from ponderttt.costs import Measured
from ponderttt.errors import PonderTTTError
from ponderttt.fast_weights.base import Fast
from ponderttt.loop.arm import Arm, Past, initial_state
from ponderttt.loop.page import Group
from ponderttt.loop.stream import adapt, adapt_once, follow, score_once
from ponderttt.policies.budget import BudgetTables, next_log_weights, stream_units

#: Sequences grow exponentially with chunks.
EXHAUSTIVE_CHUNKS = 6


class Found(NamedTuple):
    """The actions that an oracle found for one stream of N chunks.

    Attributes:
        actions: one action per chunk.
        look_ahead: for each chunk, the loss of the next chunk after SKIP minus that after UPDATE_1, UPDATE_2 and UPDATE_4,
            nats per token; None if there is none.
    """

    actions: tuple[Action, ...]
    look_ahead: tuple[tuple[float, ...] | None, ...]


class _Walk:
    """One stream's fast weights after any sequence of actions."""

    def __init__(self, arm: Arm, group: Group) -> None:
        if len(group.streams) != 1:
            raise ValueError("an oracle searches one stream at a time")
        self.arm, self.group, self.stream = arm, group, group.streams[0]
        self.start: Fast = initial_state(arm, 1).fast

    def loss(self, t: int, past: Past, fast: Fast) -> float:
        """Return the total loss of chunk t, nats."""
        return float(np.asarray(self._scored(t, past, fast).value.nll, np.float64).sum())

    def learn(self, t: int, past: Past, fast: Fast, action: Action, shared: bool = True) -> tuple[Past, Fast]:
        """Return the past and the fast weights after an action on chunk t; the page keeps them if they are shared."""
        programs, page = self.arm.programs, self.group.page(t)
        after, before = past, programs.trimmed(fast, t)
        learned = before
        if action.steps:
            after = (*past, (self.arm.lesson_name, t, int(action)))
            if shared:
                learned = adapt_once(self.arm, (past,), before, [action], page).fast
            else:
                learned = adapt(self.arm, before, [action], page).fast
        if programs.follows:
            learned = follow(programs, fast, learned, self._scored(t, past, fast))
        return after, learned

    def _scored(self, t: int, past: Past, fast: Fast) -> Measured:
        programs = self.arm.programs
        return score_once(programs, (past,), programs.trimmed(fast, t), self.group.page(t))


def price_of_budget(
    gains: Float[np.ndarray, " A"], costs: Float[np.ndarray, " A"], mean_cost: float
) -> float:
    """Return what one unit of cost gains if every chunk offers ``gains`` for ``costs`` and ``mean_cost`` is spent.

    It is the slope at ``mean_cost`` of the least concave function above the points, but at least 0.  At a corner it is the
    mean of both slopes.
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
    """Choose at each chunk the action with the largest gain on the next chunk minus the price of its cost.

    The price is :func:`price_of_budget` of the mean gains so far in this stream, at the mean cost that is left for the
    chunks before the last.

    Args:
        arm: arm whose module is searched; its policy is not used.
        group: group of the one stream.
        tables: tables of the budget.
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
        # An update on the last chunk gains nothing, so the rest of the budget is for the chunks before it.
        price = price_of_budget(mean_gains, costs, budget / max(1, length - t - 1))
        allowed = _allowed(tables, budget, length - t - 1)
        chosen = Action(int(np.argmax(np.where(allowed, gains - price * costs, -np.inf))))
        actions.append(chosen)
        budget -= int(costs[chosen])
        past, fast = after[chosen]
        group.page(t).release()
    return Found(tuple(actions), tuple(look_ahead))


def exhaustive_oracle(arm: Arm, group: Group, tables: BudgetTables) -> Found:
    """Return the sequence with the lowest total loss among all that spend the stream's budget exactly.

    Raises:
        PonderTTTError: the stream has more than ``EXHAUSTIVE_CHUNKS`` chunks.
    """
    walk, units = _Walk(arm, group), np.asarray(tables.units)
    length = len(walk.stream.hidden)
    if length > EXHAUSTIVE_CHUNKS:
        raise PonderTTTError(
            f"exhaustive_oracle: {walk.stream.stream_id} has {length} chunks, and sequences of more than "
            f"{EXHAUSTIVE_CHUNKS} are too many; lower chunks_per_stream or remove the method from grid.methods"
        )

    def best(t: int, past: Past, fast: Fast, budget: int) -> tuple[float, tuple[Action, ...]]:
        """Return the lowest total loss of chunks t, t+1, … and its actions."""
        here, possible = walk.loss(t, past, fast), _allowed(tables, budget, length - t - 1)
        allowed = [action for action in Action if possible[action]]
        if t + 1 == length:
            # The action after the last chunk changes no loss.
            return here, (allowed[0],)
        # Pages do not keep these: there are too many.
        branches = []
        for action in allowed:
            node = walk.learn(t, past, fast, action, shared=False)
            rest, actions = best(t + 1, *node, budget - int(units[action]))
            branches.append((rest, (action, *actions)))
        total, actions = min(branches, key=lambda branch: branch[0])
        return here + total, actions

    _, actions = best(0, (), walk.start, int(stream_units(tables, length)))
    return Found(actions, (None,) * length)


def _allowed(tables: BudgetTables, units: int, chunks_left: int) -> Bool[np.ndarray, " A"]:
    """Return which actions leave a rest that can still be spent exactly."""
    weights = next_log_weights(tables, jnp.asarray(units), jnp.asarray(chunks_left))
    allowed: Bool[np.ndarray, " A"] = np.isfinite(np.asarray(weights))
    return allowed
