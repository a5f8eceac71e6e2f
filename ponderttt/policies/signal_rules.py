"""Rules that follow a signal: the harder a chunk looks beside the chunks of training streams, the more updates.

Percentiles come from calibration chunks of training streams and are frozen.  What a rank buys is set by the budget,
see :mod:`ponderttt.policies.budget`.
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

#: Fields of an observation that a percentile rule can follow.
SIGNALS = ("entropy", "loss", "reconstruction")


def percentile_rank(value: Float[Array, ""], calibration: Float[Array, " M"]) -> Float[Array, ""]:
    """Share of the calibration values below ``value``, and half of those equal to it; 0..1.

    NaN ranks as 0: what was not measured asks for nothing.
    """
    below, equal = jnp.mean(calibration < value), jnp.mean(calibration == value)
    return below + 0.5 * equal


def _calibrated(values: tuple[float, ...]) -> Float[Array, " M"]:
    if not values or not np.all(np.isfinite(values)):
        raise ValueError("a percentile rule needs finite calibration values")
    return jnp.asarray(values, jnp.float32)


class PercentileParams(NamedTuple):
    """Of :class:`Percentile`."""

    tables: BudgetTables
    calibration: Float[Array, " M"]
    #: Index into :data:`SIGNALS`.
    signal: Int[Array, ""]


@dataclass(frozen=True)
class Percentile:
    """Rank of a signal among calibration chunks, spent to the unit like the draws of :class:`Random`.

    Args:
        signal: one of :data:`SIGNALS`.
        calibration: its values on chunks of training streams.
        budget: mean cost per chunk, in the unit of ``costs``.
        costs: of the four actions.
        shares: of the four actions to aim at, such as (0, 0.3, 0.4, 0.3); ``None``: those of greatest entropy.

    Raises:
        PonderTTTError: no mixture of the actions has the budget, or bad shares.
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
        """Units spent so far."""
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
    """Of :class:`Reconstruction`."""

    tables: BudgetTables
    calibration: Float[Array, " M"]
    step: Float[Array, ""]


class ReconstructionState(NamedTuple):
    """Of :class:`Reconstruction`."""

    spent: Int[Array, ""]
    #: Moving average of the stream's own ranks; 0.5 is what calibration chunks have.
    average: Float[Array, ""]


@dataclass(frozen=True)
class Reconstruction:
    """Percentile of the reconstruction error, re-centred by a moving average of the stream's own ranks.

    The error needs no label.  A stream whose errors lie off the calibration has ranks around another middle than 0.5;
    ``rank − (average − 0.5)`` brings them back, so that such a stream is updated at the target rate along its way and
    not only when the budget forces it.  The average is that of the chunks before, so the first decision of a stream
    uses the calibration alone, and counts like all others.
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
        """Nothing spent, ranks like the calibration's."""
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
    """Of :class:`Adaptive`."""

    tables: BudgetTables
    #: Median committed loss of calibration chunks, nats per token.
    median: Float[Array, ""]
    step: Float[Array, ""]
    #: The level before the first chunk.
    start: Int[Array, ""]


class AdaptiveState(NamedTuple):
    """Of :class:`Adaptive`."""

    spent: Int[Array, ""]
    #: The last action.
    level: Int[Array, ""]
    #: Moving average of the stream's own loss; NaN before its first chunk.
    average: Float[Array, ""]


@dataclass(frozen=True)
class Adaptive:
    """High loss one more, low loss one less.

    A chunk whose loss is above the moving average of its stream moves the level up by one action, another moves it
    down by one; the first chunk is compared with the median of the calibration.  The level starts at the action whose
    cost is nearest to the budget.  Only actions after which the rest of the budget can still be spent to the unit are
    taken: the one nearest to the level, the cheaper of two, which becomes the level.
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
        """Nothing spent, nothing seen."""
        return AdaptiveState(jnp.asarray(0, jnp.int32), self.params.start, jnp.asarray(jnp.nan, jnp.float32))

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`; the score is the loss above what it is compared with."""
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
