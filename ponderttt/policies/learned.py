"""Learned policies as they decide: pure functions of trained parameters, like all rules.

A *score* policy computes one number per chunk; the higher it is, the more an update should gain.  The number is ranked
among its values on chunks of training streams and spent as a signal rule spends (:mod:`ponderttt.policies.budget`), so
such a policy differs from a rule only in its signal.  A policy with a distribution over the four actions draws from it,
conditioned on the stream's total being its budget.
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

#: Features that are 1, as without a budget, for policies that were trained without one.
_BUDGET_FEATURES = np.array([index("budget_remaining"), index("budget_rate")])


class Linear(NamedTuple):
    """A linear score of n normalised features."""

    coefficients: Float[Array, " n"]
    intercept: Float[Array, ""]


class ScoreParams(NamedTuple):
    """Parameters of a score policy.

    Attributes:
        tables: tables of the budget.
        calibration: scores of chunks of training streams.
        normaliser: statistics of the features.
        score: a :class:`Linear` or a :class:`ponderttt.policies.networks.Gate`.
    """

    tables: BudgetTables
    calibration: Float[Array, " M"]
    normaliser: Normaliser
    score: Any


def inputs_of(network: Linear | Gate | ActorCritic) -> int:
    """Return the number n of features that a network sees: the first n of the table."""
    if isinstance(network, Linear):
        return network.coefficients.shape[-1]
    return int(network.norm.num_features if isinstance(network, Gate) else network.actor.first.in_features)


def without_budget(features: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """Return raw features as they would be without a budget."""
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
        """Return the units spent so far: 0."""
        return jnp.asarray(0, jnp.int32)

    @staticmethod
    @abc.abstractmethod
    def score_of(score: Any, inputs: Float[Array, "*B n"]) -> Float[Array, "*B"]:
        """Return the score of normalised features."""

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
    """A policy that ranks the predicted gain of an update, in nats per token summed over the later chunks."""

    @staticmethod
    def score_of(score: Linear, inputs: Float[Array, "*B n"]) -> Float[Array, "*B"]:
        """Return the predicted gain."""
        return inputs @ score.coefficients + score.intercept


class GatePolicy(_ScorePolicy):
    """A policy that ranks a trained gate's log-odds of UPDATE."""

    @staticmethod
    def score_of(score: Gate, inputs: Float[Array, "*B n"]) -> Float[Array, "*B"]:
        """Return the log-odds of UPDATE."""
        logits = score(inputs)
        return logits[..., 1] - logits[..., 0]


class ActorParams(NamedTuple):
    """Parameters of :class:`ActorPolicy`."""

    tables: BudgetTables
    normaliser: Normaliser
    network: ActorCritic


@dataclass(frozen=True)
class ActorPolicy:
    """A stochastic policy over the four actions that spends a stream's budget exactly.

    It draws an action with probability ∝ π(a | chunk) · W(a), where W is the total weight of all ways to spend exactly
    what is left after a, if later chunks draw from the policy's average shares.  This is the policy conditioned on the
    total: an action after which the total cannot be met is never drawn.

    Args:
        network: trained actor and critics.
        normaliser: statistics of the features.
        shares: shares of the four actions in training.
        budget: mean cost per chunk, in the unit of ``costs``.
        costs: costs of the four actions.
    """

    network: ActorCritic
    normaliser: Normaliser
    shares: tuple[float, ...]
    budget: float
    costs: tuple[float, ...] = NOMINAL_COSTS
    params: Any = field(init=False, compare=False, repr=False)

    #: Smaller shares are raised to this, so that no way of spending is impossible.
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
        """Return the units spent so far: 0."""
        return jnp.asarray(0, jnp.int32)

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`; the score is the mean cost of π, in units."""
        seen = apply(params.normaliser, observation.features)[: inputs_of(params.network)]
        own = jax.nn.log_softmax(params.network(seen).logits)
        left = units_left(params.tables, state, observation)
        # π replaces the shares of this chunk, so those of the table are taken out.
        ways = next_log_weights(params.tables, left, observation.chunks_left) - params.tables.log_share
        action = jax.random.categorical(key, own + ways).astype(jnp.int32)
        score = jnp.exp(own) @ params.tables.units
        return without_rank(state + params.tables.units[action], action, score)
