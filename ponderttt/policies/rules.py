"""Rules that follow no signal: a fixed action, random actions of a total cost, and a schedule by chunk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ponderttt.actions import Action
from ponderttt.policies.base import Decision, Observation
from ponderttt.policies.budget import NOMINAL_COSTS, budget_tables, spend_by_rank, units_left

#: Cuts of decisions without a rank.
NO_CUTS = np.full(3, np.nan, np.float32)


def without_rank(state: Any, action: Any, score: Any = jnp.nan) -> Decision:
    """Return a decision without a rank."""
    return Decision(
        state, jnp.asarray(action, jnp.int32), jnp.asarray(score), jnp.asarray(jnp.nan), jnp.asarray(NO_CUTS)
    )


@dataclass(frozen=True)
class Fixed:
    """The same action after every chunk."""

    action: Action
    costs: tuple[float, ...] = NOMINAL_COSTS
    budget: None = None

    @property
    def params(self) -> Any:
        """The action's index."""
        return jnp.asarray(int(self.action))

    def init(self) -> Any:
        """Return an empty state."""
        return ()

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`."""
        return without_rank(state, params)


@dataclass(frozen=True)
class Schedule:
    """Actions by the position of the chunk in its stream; the last one repeats."""

    actions: tuple[Action, ...]
    costs: tuple[float, ...] = NOMINAL_COSTS
    budget: None = None

    def __post_init__(self) -> None:
        if not self.actions:
            raise ValueError("a schedule must have at least one action")

    @property
    def params(self) -> Any:
        """The actions' indices."""
        return jnp.asarray([int(action) for action in self.actions])

    def init(self) -> Any:
        """Return an empty state: the position is in the observation."""
        return ()

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`."""
        return without_rank(state, params[jnp.minimum(observation.chunk_index, len(params) - 1)])


@dataclass(frozen=True)
class Random:
    """The rule ``random``: a random sequence of actions whose total cost is the budget of the stream.

    All sequences of exactly that total are equally likely; independent draws of maximum entropy, given their total, have
    the same distribution.  Without that condition they would meet the budget only in expectation and miss it by a third
    on a stream of six chunks.  Streams longer than ``HORIZON`` start with independent draws and meet the budget over
    their last chunks.  A total that no sequence has is rounded down.

    Raises:
        PonderTTTError: no mixture of the actions has the budget.
    """

    budget: float
    costs: tuple[float, ...] = NOMINAL_COSTS
    params: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", budget_tables(self.costs, self.budget))

    def init(self) -> Any:
        """Return the units spent so far: 0."""
        return jnp.asarray(0, jnp.int32)

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`."""
        left = units_left(params, state, observation)
        spent = spend_by_rank(params, left, observation.chunks_left, jax.random.uniform(key))
        return Decision(state + spent.units, spent.action, jnp.asarray(jnp.nan), spent.rank, spent.cuts)
