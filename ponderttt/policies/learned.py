"""Learned policies at work: pure functions of trained parameters, like every rule.

A *score* policy has one number for each chunk, the higher the more an update should pay.  It is ranked among its
values on chunks of training streams and spent as every rule spends (:mod:`ponderttt.policies.budget`), so that it
differs from a rule in its signal alone.  A policy with a distribution over the four actions draws from it, given that
the stream's total is its budget.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ponderttt.features.normalise import Normaliser, apply
from ponderttt.features.table import index
from ponderttt.policies.base import Decision, Observation
from ponderttt.policies.budget import (
    NOMINAL_COSTS,
    BudgetTables,
    budget_tables,
    next_log_weights,
    spend_by_rank,
    units_left,
)
from ponderttt.policies.networks import ActorCritic, Gate
from ponderttt.policies.rules import without_rank
from ponderttt.policies.signal_rules import percentile_rank

#: What a policy that was trained without a budget is shown instead of these: nothing is scarce.
_BUDGET_FEATURES = np.array([index("budget_remaining"), index("budget_rate")])


class Linear(NamedTuple):
    """A linear score of n normalised features."""

    coefficients: Float[Array, " n"]
    intercept: Float[Array, ""]


class ScoreParams(NamedTuple):
    """Of a score policy."""

    tables: BudgetTables
    #: Scores of chunks of training streams.
    calibration: Float[Array, " M"]
    normaliser: Normaliser
    #: A :class:`Linear` or a :class:`ponderttt.policies.networks.Gate`.
    score: Any


def inputs_of(network: Linear | Gate | ActorCritic) -> int:
    """How many features a network sees: the first n of the table."""
    if isinstance(network, Linear):
        return network.coefficients.shape[-1]
    return int(network.norm.num_features if isinstance(network, Gate) else network.actor.first.in_features)


def without_budget(features: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """Raw features as a policy is shown them that was trained without a budget."""
    return jnp.asarray(features).at[..., _BUDGET_FEATURES].set(1.0)


@dataclass(frozen=True)
class _ScorePolicy(abc.ABC):
    score: Any
    normaliser: Normaliser
    calibration: tuple[float, ...]
    budget: float
    costs: tuple[float, ...] = NOMINAL_COSTS
    params: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        params = ScoreParams(
            budget_tables(self.costs, self.budget),
            jnp.asarray(self.calibration, jnp.float32),
            self.normaliser,
            self.score,
        )
        object.__setattr__(self, "params", params)

    def init(self) -> Any:
        """Units spent so far."""
        return jnp.asarray(0, jnp.int32)

    @staticmethod
    @abc.abstractmethod
    def score_of(score: Any, inputs: Float[Array, "*B n"]) -> Float[Array, "*B"]:
        """The score of normalised features."""

    @classmethod
    def decide(cls, params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`."""
        seen = apply(params.normaliser, without_budget(observation.features))[: inputs_of(params.score)]
        score = cls.score_of(params.score, seen)
        rank = percentile_rank(score, params.calibration)
        left = units_left(params.tables, state, observation)
        spent = spend_by_rank(params.tables, left, observation.chunks_left, rank)
        return Decision(state + spent.units, spent.action, score, spent.rank, spent.cuts)


class RegressionPolicy(_ScorePolicy):
    """Rank of the predicted gain of an update, nats per token summed over the chunks to come."""

    @staticmethod
    def score_of(score: Linear, inputs: Float[Array, "*B n"]) -> Float[Array, "*B"]:
        """The predicted gain."""
        return inputs @ score.coefficients + score.intercept


class GatePolicy(_ScorePolicy):
    """Rank of a trained gate's log-odds of UPDATE; where the budget allows one update or none, a binary gate."""

    @staticmethod
    def score_of(score: Gate, inputs: Float[Array, "*B n"]) -> Float[Array, "*B"]:
        """Log-odds."""
        logits = score(inputs)
        return logits[..., 1] - logits[..., 0]


class ActorParams(NamedTuple):
    """Of :class:`ActorPolicy`."""

    tables: BudgetTables
    normaliser: Normaliser
    network: ActorCritic


@dataclass(frozen=True)
class ActorPolicy:
    """A stochastic policy over the four actions, held to a stream's budget.

    An action is drawn with probability ∝ π(a | chunk) · W(a): W is the weight of all ways to spend exactly what is
    left after a, when later chunks draw from the policy's own average shares.  This is the policy conditioned on the
    total; an action after which the total cannot be met is never drawn.

    Args:
        network: trained.
        normaliser: of the features.
        shares: of the four actions in training.
        budget: mean cost per chunk, in the unit of ``costs``.
        costs: of the four actions.
    """

    network: ActorCritic
    normaliser: Normaliser
    shares: tuple[float, ...]
    budget: float
    costs: tuple[float, ...] = NOMINAL_COSTS
    params: Any = field(init=False, compare=False, repr=False)

    #: Kept from 0, so that no way of spending is impossible.
    SMALLEST_SHARE: ClassVar[float] = 0.01

    def __post_init__(self) -> None:
        shares = tuple(max(share, self.SMALLEST_SHARE) for share in self.shares)
        params = ActorParams(
            budget_tables(self.costs, self.budget, shares),
            self.normaliser,
            self.network,
        )
        object.__setattr__(self, "params", params)

    def init(self) -> Any:
        """Units spent so far."""
        return jnp.asarray(0, jnp.int32)

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`; the score is the mean cost that π alone would spend, in units."""
        seen = apply(params.normaliser, observation.features)[: inputs_of(params.network)]
        own = jax.nn.log_softmax(params.network(seen).logits)
        left = units_left(params.tables, state, observation)
        # The shares of this chunk are π's own, so those of the table are taken out.
        ways = next_log_weights(params.tables, left, observation.chunks_left) - params.tables.log_share
        action = jax.random.categorical(key, own + ways).astype(jnp.int32)
        score = jnp.exp(own) @ params.tables.units
        return without_rank(state + params.tables.units[action], action, score)
