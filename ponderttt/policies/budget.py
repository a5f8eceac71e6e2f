"""What a budget allows: the exact distribution of the next action over all ways of spending what is left.

Think of every sequence of actions for the chunks that are left whose total cost is exactly what is left of the
stream's budget, each weighted by the product of the shares of its actions.  Which action the next chunk gets then has
a distribution, and its cumulative sums are three *cuts* between 0 and 1.  A rule places the chunk by a *rank* between
0 and 1 and takes the action whose interval holds it: ``action = number of cuts ≤ rank``.

* A uniform rank draws sequences of that total at random: the control.
* The percentile of a signal among the chunks of training streams gives the dear actions to the chunks with a high
  signal.  It spends to the unit what the control spends, on every stream, so the signal is all they differ in.

Costs are counted in whole units above the cheapest action, so that totals are met exactly and never in floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.policies.base import Observation

#: Of SKIP, UPDATE_1, UPDATE_2 and UPDATE_4, in multiples of SKIP.
NOMINAL_COSTS = tuple(action.nominal_cost for action in Action)
#: Streams are matched exactly over their last chunks, at most so many; a table of this height is held in memory.
HORIZON = 64
#: Log-weight of an action whose share is 0: small enough to stay out wherever the total can be met without it.
_STAYS_OUT = -30.0
#: Rounding to whole units may move a stream's cost above SKIP by this share of itself at most.
_ROUNDING = 0.01
#: Ranks are below 1: the interval of an action ends before the cut that ends it.
_LARGEST_RANK = float(np.nextafter(np.float32(1), np.float32(0)))


class BudgetTables(NamedTuple):
    """What is looked up to spend a budget; C is 1 + ``HORIZON`` times the units of the dearest action."""

    #: Whole units by which each action costs more than the cheapest.
    units: Int[Array, " A"]
    #: Units of the budget per chunk.
    units_per_chunk: Float[Array, ""]
    #: Log of the shares that sequences are weighted by.
    log_share: Float[Array, " A"]
    #: Log of the summed weights of the sequences of n actions of exactly c units.
    log_weight: Float[Array, "N C"]
    #: Largest number of units that n actions can have without exceeding c.
    reachable: Int[Array, "N C"]
    #: Log-probabilities before the horizon is in sight.
    far: Float[Array, " A"]


def unit_name(costs: Sequence[float]) -> str:
    """The name of the unit that ``costs`` are in, for messages."""
    return "nominal cost" if tuple(costs) == NOMINAL_COSTS else "counted FLOPs"


def _log_shares(shares: Sequence[float] | None) -> Float[np.ndarray, " A"]:
    if shares is None:
        return np.zeros(len(Action))
    values = np.asarray(shares, float)
    if values.shape != (len(Action),) or not np.all(np.isfinite(values) & (values >= 0)) or not values.any():
        raise PonderTTTError(
            f"shares of actions are four numbers of at least 0, not all 0, for {', '.join(a.name for a in Action)}; found {tuple(shares)}"
        )
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(values / values.sum()), _STAYS_OUT)


def matched_probabilities(
    costs: Sequence[float], budget: float, shares: Sequence[float] | None = None
) -> Float[np.ndarray, " A"]:
    """The distribution over the actions nearest to ``shares`` whose mean cost is ``budget``.

    It has the form p_a ∝ share_a · exp(−λ·c_a), which among all distributions of that mean has the smallest
    Kullback–Leibler divergence from the shares; λ is found by bisection.  Without shares it is the distribution of
    maximum entropy.  An action whose share is 0 stays out (below 1e-6) unless the budget cannot be met without it.

    Raises:
        PonderTTTError: ``budget`` is not strictly between the cheapest and the dearest action, or bad shares.
    """
    values = np.asarray(costs, float)
    if not values.min() < budget < values.max():
        raise PonderTTTError(
            f"no mixture of actions has a mean cost of {budget:.6g} × SKIP in {unit_name(costs)}: "
            f"name a budget between {values.min():.6g} and {values.max():.6g}, both excluded"
        )
    start = _log_shares(shares)

    def tilted(rate: float) -> Float[np.ndarray, " A"]:
        logits = start - rate * (values - values.min())
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()

    high = 200.0 / np.diff(np.unique(values)).min()
    low = -high
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if tilted(middle) @ values > budget else (low, middle)
    return tilted(0.5 * (low + high))


def whole_units(costs: Sequence[float], budget: float) -> tuple[tuple[int, ...], float]:
    """Costs above the cheapest action in whole units, and the size of the unit.

    The unit is the largest that divides the dearest action and moves no action by more than 1 % of what the budget
    allows above the cheapest, so that a stream's total is that exact too.  Nominal costs come out as they are.
    """
    excess = np.asarray(costs, float) - min(costs)
    allowed = _ROUNDING * (budget - min(costs))
    parts = 1
    while True:
        size = float(excess.max()) / parts
        units = np.rint(excess / size)
        if np.abs(excess - units * size).max() <= allowed:
            return tuple(int(u) for u in units), size
        parts += 1


def budget_tables(
    costs: Sequence[float], budget: float, shares: Sequence[float] | None = None
) -> BudgetTables:
    """The tables of a budget.

    Args:
        costs: of the four actions, in multiples of SKIP: nominal, or counted FLOPs.
        budget: mean cost per chunk in the same unit.
        shares: of the four actions that sequences are weighted by, such as 0, 0.3, 0.4, 0.3; ``None`` weighs all
            sequences of a total equally.  Shares of another mean cost are tilted, see :func:`matched_probabilities`:
            given the total, that changes no weight.

    Raises:
        PonderTTTError: a budget that no mixture of the actions has, or bad shares.
    """
    far = matched_probabilities(costs, budget, shares)
    units, size = whole_units(costs, budget)
    log_shares = _log_shares(shares)
    width = HORIZON * max(units) + 1
    log_weight = np.full((HORIZON + 1, width), -np.inf)
    log_weight[0, 0] = 0.0
    for n in range(1, HORIZON + 1):
        for share, cost in zip(log_shares, units, strict=True):
            longer = log_weight[n - 1, : width - cost] + share
            log_weight[n, cost:] = np.logaddexp(log_weight[n, cost:], longer)
    position = np.where(np.isfinite(log_weight), np.arange(width), 0)
    return BudgetTables(
        units=jnp.asarray(units, jnp.int32),
        units_per_chunk=jnp.asarray((budget - min(costs)) / size, jnp.float32),
        log_share=jnp.asarray(log_shares, jnp.float32),
        log_weight=jnp.asarray(log_weight, jnp.float32),
        reachable=jnp.asarray(np.maximum.accumulate(position, axis=1), jnp.int32),
        far=jnp.log(jnp.asarray(far, jnp.float32)),
    )


def _folded(
    tables: BudgetTables, units: Int[Array, "*A"], chunks: Int[Array, ""]
) -> tuple[Int[Array, ""], Int[Array, "*A"]]:
    """The row of the tables for so many chunks, and the units to take off before the column is looked up.

    Beyond the horizon each chunk in excess is given the cheapest or the dearest action, so that the others are left
    with an average task.  What they can meet, all chunks together can meet.
    """
    row = jnp.minimum(chunks, HORIZON)
    dearest = jnp.max(tables.units)
    dear = jnp.clip((units - HORIZON * dearest // 2) // dearest, 0, chunks - row)
    return row, dear * dearest


def next_log_weights(
    tables: BudgetTables, units_left: Int[Array, ""], chunks_left: Int[Array, ""]
) -> Float[Array, " A"]:
    """Log-weight of each action for this chunk; −∞ where the rest could not be spent to the unit afterwards.

    Args:
        tables: of the budget.
        units_left: what this chunk and the later ones may cost.  A total that no sequence has is rounded down.
        chunks_left: chunks after this one.
    """
    last = tables.log_weight.shape[1] - 1
    left = jnp.asarray(chunks_left, jnp.int32) + 1
    row, off = _folded(tables, units_left, left)
    total = tables.reachable[row, jnp.clip(units_left - off, 0, last)] + off
    rest = total - tables.units
    row, off = _folded(tables, rest, left - 1)
    column = rest - off
    within = tables.log_weight[row, jnp.clip(column, 0, last)]
    after = jnp.where((column >= 0) & (column <= last), within, -jnp.inf)
    far = jnp.where(jnp.isfinite(after), tables.far, -jnp.inf)
    return jnp.where(left > HORIZON, far, tables.log_share + after)


def cuts(tables: BudgetTables, units_left: Int[Array, ""], chunks_left: Int[Array, ""]) -> Float[Array, " 3"]:
    """Probability of an action below UPDATE_1, below UPDATE_2, below UPDATE_4; see :func:`next_log_weights`.

    The interval of an action that cannot be taken is empty, whatever the rounding.
    """
    logits = next_log_weights(tables, units_left, chunks_left)
    skip, one, two, four = jnp.exp(logits - jnp.max(logits))
    # Summed in this order, the 0 of an impossible action leaves both sums as they were.
    below = jnp.stack([skip, skip + one, skip + one + two])
    above = jnp.stack([four + two + one, four + two, four])
    return below / (below + above)


def stream_units(tables: BudgetTables, chunks: Int[Array, ""] | int) -> Int[Array, ""]:
    """Return the budget of a stream of so many chunks in whole units, rounded down."""
    # A product such as 17.9999 in float32 is 18.
    return jnp.floor(tables.units_per_chunk * jnp.asarray(chunks, jnp.float32) + 1e-3).astype(jnp.int32)


def units_left(tables: BudgetTables, spent: Int[Array, ""], observation: Observation) -> Int[Array, ""]:
    """Return the units of the stream's budget that are left after ``spent``.

    ``observation.budget_left`` would not do: if an update costs little compared with SKIP, float32 cannot hold it.
    """
    return stream_units(tables, observation.chunk_index + observation.chunks_left + 1) - spent


class Spent(NamedTuple):
    """An action that a rank chose.

    Attributes:
        action: index of an :class:`ponderttt.actions.Action`.
        units: what it costs, in units of the tables.
        rank: the rank, clipped to 0 ≤ rank < 1.
        cuts: ranks from which UPDATE_1, UPDATE_2 and UPDATE_4 begin.
    """

    action: Int[Array, ""]
    units: Int[Array, ""]
    rank: Float[Array, ""]
    cuts: Float[Array, " 3"]


def spend_by_rank(
    tables: BudgetTables, left: Int[Array, ""], chunks_left: Int[Array, ""], rank: Float[Array, ""]
) -> Spent:
    """Choose the action whose interval contains a rank.

    Args:
        tables: tables of the budget.
        left: units for this chunk and the later ones, see :func:`units_left`.
        chunks_left: number of chunks after this one.
        rank: rank of the chunk among training chunks, or a random number; 0..1.
    """
    rank = jnp.clip(rank, 0.0, _LARGEST_RANK)
    starts = cuts(tables, left, chunks_left)
    action = jnp.sum(starts <= rank).astype(jnp.int32)
    return Spent(action, tables.units[action], rank, starts)
