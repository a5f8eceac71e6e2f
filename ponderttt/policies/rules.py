"""Policies that are not trained: a fixed action, and random actions at a matched cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ponderttt.actions import Action
from ponderttt.policies.base import Decision, Observation


@dataclass(frozen=True)
class Fixed:
    """The same action after every chunk."""

    action: Action
    budget: float | None = None

    @property
    def params(self) -> Any:
        """The action's index."""
        return jnp.asarray(int(self.action))

    def init(self) -> Any:
        """Nothing to remember."""
        return ()

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`."""
        return Decision(state, params, jnp.asarray(jnp.nan))


def matched_probabilities(mean_cost: float) -> Float[np.ndarray, " A"]:
    """The distribution of maximum entropy over the actions whose mean nominal cost is ``mean_cost``.

    It has the form p_a ∝ exp(−λ·c_a); λ is found by bisection.

    Raises:
        ValueError: ``mean_cost`` is not strictly between the cheapest and the dearest action.
    """
    costs = np.array([action.nominal_cost for action in Action])
    if not costs.min() < mean_cost < costs.max():
        raise ValueError(
            f"no mixture of actions has a mean cost of {mean_cost}: {costs.min()} < cost < {costs.max()}"
        )

    def tilted(rate: float) -> Float[np.ndarray, " A"]:
        weights = np.exp(-rate * (costs - costs.min()) - np.max(-rate * (costs - costs.min())))
        return weights / weights.sum()

    low, high = -50.0, 50.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if tilted(middle) @ costs > mean_cost else (low, middle)
    return tilted(0.5 * (low + high))


#: Streams are matched exactly over their last chunks, at most so many; a table of this height is held in memory.
HORIZON = 64


class RandomTables(NamedTuple):
    """What :class:`Random` looks up; costs are whole numbers from 0 to ``HORIZON`` times the dearest."""

    #: Log of the number of sequences of n actions that cost exactly c.
    log_count: Float[Array, "N C"]
    #: Largest cost that n actions can have without exceeding c; the cheapest possible below that.
    reachable: Int[Array, "N C"]
    #: Log-probabilities before the horizon is in sight.
    far: Float[Array, " A"]


def random_tables(mean_cost: float) -> RandomTables:
    """The tables of a budget."""
    costs = [int(action.nominal_cost) for action in Action]
    width = HORIZON * max(costs) + 1
    counts = np.full((HORIZON + 1, width), -np.inf)
    counts[0, 0] = 0.0
    for n in range(1, HORIZON + 1):
        for cost in costs:
            counts[n, cost:] = np.logaddexp(counts[n, cost:], counts[n - 1, : width - cost])
    position = np.where(np.isfinite(counts), np.arange(width), -1)
    reachable = np.maximum.accumulate(position, axis=1)
    lowest = np.arange(HORIZON + 1)[:, None] * min(costs)
    return RandomTables(
        jnp.asarray(counts, jnp.float32),
        jnp.asarray(np.where(reachable < 0, lowest, reachable)),
        jnp.log(jnp.asarray(matched_probabilities(mean_cost), jnp.float32)),
    )


@dataclass(frozen=True)
class Random:
    """The rate-matched control: a random sequence of actions whose total cost is the budget of the stream.

    All sequences of exactly that total are equally likely, which is what draws of maximum entropy become once their
    total is given.  Independent draws would match the budget in expectation only, and miss it by a third on a stream
    of six chunks.  Streams longer than ``HORIZON`` start with such draws and are matched over their last chunks.  A
    total that no sequence has is rounded down to one that exists.
    """

    budget: float | None
    params: Any = field(init=False, compare=False)

    def __post_init__(self) -> None:
        assert self.budget is not None
        object.__setattr__(self, "params", random_tables(self.budget))

    def init(self) -> Any:
        """Nothing to remember: what was spent is in the observation."""
        return ()

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`."""
        costs = jnp.asarray([int(action.nominal_cost) for action in Action])
        left = observation.chunks_left + 1
        rows = jnp.minimum(left, HORIZON)
        # A cost such as 17.9999 in float32 is 18.
        budget = jnp.floor(observation.budget_left + 1e-3).astype(jnp.int32)
        total = params.reachable[rows, jnp.clip(budget, 0, params.reachable.shape[1] - 1)]
        rest = total - costs
        near = jnp.where(rest >= 0, params.log_count[rows - 1, jnp.maximum(rest, 0)], -jnp.inf)
        logits = jnp.where(left > HORIZON, params.far, near)
        return Decision(state, jax.random.categorical(key, logits), jnp.asarray(jnp.nan))
