"""Signal rules: the harder a chunk looks compared with chunks of training streams, the more updates follow.

Percentiles come from chunks of training streams and are fixed before evaluation.  The budget decides which action a
rank gets, see :mod:`ponderttt.policies.budget`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ponderttt.actions import Action
from ponderttt.policies.base import Decision, Observation
from ponderttt.policies.budget import (
    NOMINAL_COSTS,
    BudgetTables,
    budget_tables,
    next_log_weights,
    spend_by_rank,
    units_left,
)
from ponderttt.policies.rules import without_rank

#: Fields of an observation that :class:`Percentile` can follow.
SIGNALS = ("entropy", "loss", "reconstruction")


def percentile_rank(value: Float[Array, ""], calibration: Float[Array, " M"]) -> Float[Array, ""]:
    """Return the fraction of calibration values below ``value``, plus half of those equal to it; 0..1.

    NaN has rank 0: a signal that was not measured causes no update.
    """
    below, equal = jnp.mean(calibration < value), jnp.mean(calibration == value)
    return below + 0.5 * equal


def _calibrated(values: tuple[float, ...]) -> Float[Array, " M"]:
    if not values or not np.all(np.isfinite(values)):
        raise ValueError("calibration values must be finite, and there must be at least one")
    return jnp.asarray(values, jnp.float32)


class PercentileParams(NamedTuple):
    """Parameters of :class:`Percentile`; ``signal`` is an index into :data:`SIGNALS`."""

    tables: BudgetTables
    calibration: Float[Array, " M"]
    signal: Int[Array, ""]


@dataclass(frozen=True)
class Percentile:
    """A rule that ranks a signal among calibration chunks and spends exactly what :class:`.rules.Random` spends.

    Args:
        signal: one of :data:`SIGNALS`.
        calibration: values of the signal on chunks of training streams.
        budget: mean cost per chunk, in the unit of ``costs``.
        costs: costs of the four actions.
        shares: shares of the four actions to aim at, such as (0, 0.3, 0.4, 0.3); None for those of maximum entropy.

    Raises:
        PonderTTTError: no mixture of the actions has the budget, or the shares are not shares.
    """

    signal: str
    calibration: tuple[float, ...]
    budget: float
    costs: tuple[float, ...] = NOMINAL_COSTS
    shares: tuple[float, ...] | None = None
    params: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        params = PercentileParams(
            budget_tables(self.costs, self.budget, self.shares),
            _calibrated(self.calibration),
            jnp.asarray(SIGNALS.index(self.signal)),
        )
        object.__setattr__(self, "params", params)

    def init(self) -> Any:
        """Return the units spent so far: 0."""
        return jnp.asarray(0, jnp.int32)

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`."""
        score = jnp.stack([getattr(observation, name) for name in SIGNALS])[params.signal]
        rank = percentile_rank(score, params.calibration)
        left = units_left(params.tables, state, observation)
        spent = spend_by_rank(params.tables, left, observation.chunks_left, rank)
        return Decision(state + spent.units, spent.action, score, spent.rank, spent.cuts)


class ReconstructionParams(NamedTuple):
    """Parameters of :class:`Reconstruction`."""

    tables: BudgetTables
    calibration: Float[Array, " M"]
    step: Float[Array, ""]


class ReconstructionState(NamedTuple):
    """State of :class:`Reconstruction`; ``average`` is the moving average of the stream's ranks."""

    spent: Int[Array, ""]
    average: Float[Array, ""]


@dataclass(frozen=True)
class Reconstruction:
    """A rule that ranks the reconstruction error, re-centred by a moving average of the stream's own ranks.

    The error needs no labels.  If the errors of a stream are unlike the calibration's, its ranks are not centred on 0.5.
    ``rank − (average − 0.5)`` re-centres them, so that such a stream is updated at the target rate throughout and not
    only when the budget forces it.  The average covers the chunks before, so the first decision of a stream uses the
    calibration alone.
    """

    calibration: tuple[float, ...]
    budget: float
    costs: tuple[float, ...] = NOMINAL_COSTS
    shares: tuple[float, ...] | None = None
    ema_step: float = 0.1
    params: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        params = ReconstructionParams(
            budget_tables(self.costs, self.budget, self.shares),
            _calibrated(self.calibration),
            jnp.asarray(self.ema_step, jnp.float32),
        )
        object.__setattr__(self, "params", params)

    def init(self) -> Any:
        """Return nothing spent, and the mean rank of calibration chunks."""
        return ReconstructionState(jnp.asarray(0, jnp.int32), jnp.asarray(0.5, jnp.float32))

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`."""
        own = percentile_rank(observation.reconstruction, params.calibration)
        left = units_left(params.tables, state.spent, observation)
        spent = spend_by_rank(params.tables, left, observation.chunks_left, own - (state.average - 0.5))
        after = ReconstructionState(
            state.spent + spent.units, state.average + params.step * (own - state.average)
        )
        return Decision(after, spent.action, observation.reconstruction, spent.rank, spent.cuts)


class AdaptiveParams(NamedTuple):
    """Parameters of :class:`Adaptive`.

    Attributes:
        tables: tables of the budget.
        median: median committed loss of calibration chunks, nats per token.
        step: weight of the newest loss in the moving average.
        start: level before the first chunk.
    """

    tables: BudgetTables
    median: Float[Array, ""]
    step: Float[Array, ""]
    start: Int[Array, ""]


class AdaptiveState(NamedTuple):
    """State of :class:`Adaptive`.

    Attributes:
        spent: units spent so far.
        level: the last action.
        average: moving average of the stream's loss; NaN before its first chunk.
    """

    spent: Int[Array, ""]
    level: Int[Array, ""]
    average: Float[Array, ""]


@dataclass(frozen=True)
class Adaptive:
    """A rule that moves one action up after a high loss and one down after a low loss.

    A loss above the stream's moving average raises the level by one action, any other loss lowers it by one.  The first
    chunk is compared with the median of the calibration.  The level starts at the action whose cost is nearest to the
    budget.  The action is the possible one nearest to the level, the cheaper of two, and becomes the level; an action is
    possible if the rest of the budget can still be spent exactly.
    """

    calibration: tuple[float, ...]
    budget: float
    costs: tuple[float, ...] = NOMINAL_COSTS
    ema_step: float = 0.1
    params: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        params = AdaptiveParams(
            budget_tables(self.costs, self.budget),
            jnp.median(_calibrated(self.calibration)),
            jnp.asarray(self.ema_step, jnp.float32),
            jnp.asarray(np.argmin(np.abs(np.asarray(self.costs) - self.budget)), jnp.int32),
        )
        object.__setattr__(self, "params", params)

    def init(self) -> Any:
        """Return nothing spent and no loss seen."""
        return AdaptiveState(jnp.asarray(0, jnp.int32), self.params.start, jnp.asarray(jnp.nan, jnp.float32))

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`; the score is the loss minus what it is compared with."""
        loss, first = observation.loss, jnp.isnan(state.average)
        above = loss - jnp.where(first, params.median, state.average)
        level = jnp.clip(state.level + jnp.where(above > 0, 1, -1), 0, len(Action) - 1)
        left = units_left(params.tables, state.spent, observation)
        possible = jnp.isfinite(next_log_weights(params.tables, left, observation.chunks_left))
        distance = jnp.where(possible, jnp.abs(jnp.arange(len(Action)) - level), len(Action))
        action = jnp.argmin(distance).astype(jnp.int32)
        average = jnp.where(first, loss, state.average + params.step * (loss - state.average))
        after = AdaptiveState(state.spent + params.tables.units[action], action, average)
        return without_rank(after, action, above)
