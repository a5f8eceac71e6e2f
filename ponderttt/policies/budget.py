"""Spending a budget: the exact distribution of the next action over all ways to spend what is left.

Consider all sequences of actions for the remaining chunks whose total cost is exactly the rest of the stream's budget,
each weighted by the product of the shares of its actions.  They give the next action a distribution; its cumulative
sums are three *cuts* between 0 and 1.  A policy gives the chunk a *rank* between 0 and 1 and takes the action whose
interval contains it: ``action = number of cuts ≤ rank``.

* A uniform rank draws a random sequence of that total: the method ``random``.
* The percentile of a signal among chunks of training streams gives the expensive actions to the chunks with a high
  signal.  On every stream it spends exactly what ``random`` spends, so the two differ in the signal alone.

An action after the last chunk of a stream can help nothing, so it is SKIP, and the chunks before it spend the whole
budget of the stream.  Costs are counted in whole units above SKIP, so totals are exact.

A budget may be held over a corpus instead (:func:`held_over_corpus`).  Then each action has its probability at one price
per unit, on all streams, so that cuts are the same everywhere; and nothing is taken that the corpus has no budget left for.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.policies.base import Observation, Policy

P = TypeVar("P", bound=Policy)

#: Costs of SKIP, UPDATE_1, UPDATE_2 and UPDATE_4, in multiples of SKIP.
NOMINAL_COSTS = tuple(action.nominal_cost for action in Action)
#: The budget is met exactly over at most this many chunks at the end of a stream; the height of the tables.
HORIZON = 64
#: Log-weight of an action whose share is 0: too small to be chosen if the total can be met without it.
_STAYS_OUT = -30.0
#: Rounding to whole units may change a stream's cost above SKIP by at most this fraction.
_ROUNDING = 0.01
#: Ranks are less than 1: the interval of an action ends before its cut.
_LARGEST_RANK = float(np.nextafter(np.float32(1), np.float32(0)))


class BudgetTables(NamedTuple):
    """Look-up tables of a budget; C is 1 + ``HORIZON`` times the units of the most expensive action.

    Attributes:
        units: whole units by which each action costs more than the cheapest one.
        units_per_chunk: units of the budget per chunk.
        log_share: log of the shares that weight the sequences.
        log_weight: log of the total weight of all sequences of n actions with exactly c units.
        reachable: largest number of units, at most c, that n actions can have.
        far: log-probabilities of the actions at one price, while more than ``HORIZON`` chunks are left.
        corpus_left: units left for this stream and all later ones of a corpus; −1 if each stream has its own budget.
    """

    units: Int[Array, " A"]
    units_per_chunk: Float[Array, ""]
    log_share: Float[Array, " A"]
    log_weight: Float[Array, "N C"]
    reachable: Int[Array, "N C"]
    far: Float[Array, " A"]
    corpus_left: Int[Array, ""]


def unit_name(costs: Sequence[float]) -> str:
    """Return the name of the unit of ``costs``, for messages."""
    return "nominal cost" if tuple(costs) == NOMINAL_COSTS else "counted FLOPs"


def _log_shares(shares: Sequence[float] | None) -> Float[np.ndarray, " A"]:
    if shares is None:
        return np.zeros(len(Action))
    values = np.asarray(shares, float)
    if values.shape != (len(Action),) or not np.all(np.isfinite(values) & (values >= 0)) or not values.any():
        raise PonderTTTError(
            f"shares of actions must be four numbers of at least 0, not all 0, for {', '.join(a.name for a in Action)}; "
            f"got {tuple(shares)}"
        )
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(values / values.sum()), _STAYS_OUT)


def matched_probabilities(
    costs: Sequence[float], budget: float, shares: Sequence[float] | None = None
) -> Float[np.ndarray, " A"]:
    """Return the distribution over actions that is nearest to ``shares`` and has the mean cost ``budget``.

    It is p_a ∝ share_a · exp(−λ·c_a), which has the smallest Kullback–Leibler divergence from the shares among all
    distributions of that mean; λ is found by bisection.  Without shares it is the distribution of maximum entropy.  An
    action whose share is 0 gets less than 1e-6 unless the budget cannot be met without it.

    Raises:
        PonderTTTError: ``budget`` is not strictly between the cheapest and the most expensive action, or the shares are
            not shares.
    """
    values = np.asarray(costs, float)
    if not values.min() < budget < values.max():
        raise PonderTTTError(
            f"no mixture of actions has a mean cost of {budget:.6g} × SKIP in {unit_name(costs)}: "
            f"choose a budget between {values.min():.6g} and {values.max():.6g}, both excluded"
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
    """Return the costs above the cheapest action in whole units, and the size of the unit.

    The unit is the largest that divides the most expensive action and changes no action by more than 1 % of what the
    budget allows above the cheapest one; so a stream's total is at least that exact.  Nominal costs do not change.
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
    """Return the tables of a budget.

    Args:
        costs: costs of the four actions, in multiples of SKIP: nominal, or counted FLOPs.
        budget: mean cost per chunk in the same unit.
        shares: shares of the four actions that weight the sequences, such as 0, 0.3, 0.4, 0.3; None gives all sequences
            of a total the same weight.  Shares with another mean cost are tilted, see :func:`matched_probabilities`; for
            a given total this changes no weight.

    Raises:
        PonderTTTError: no mixture of the actions has the budget, or the shares are not shares.
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
        corpus_left=jnp.asarray(-1, jnp.int32),
    )


def held_over_corpus(policy: P, units: int) -> P:
    """Return a policy with a budget that it shares with other streams.

    Args:
        policy: a policy with :class:`BudgetTables` as its parameters or among them; any other stays as it is.
        units: units left for its next stream and all later ones.
    """
    params: Any = policy.params
    tables = params if isinstance(params, BudgetTables) else getattr(params, "tables", None)
    if tables is None:
        return policy
    shared = tables._replace(corpus_left=jnp.asarray(units, jnp.int32))
    changed = copy.copy(policy)
    object.__setattr__(changed, "params", shared if params is tables else params._replace(tables=shared))
    return changed


def _folded(
    tables: BudgetTables, units: Int[Array, "*A"], chunks: Int[Array, ""]
) -> tuple[Int[Array, ""], Int[Array, "*A"]]:
    """Return the row of the tables for ``chunks`` chunks, and the units to subtract before looking up the column.

    Each chunk beyond the horizon is given the cheapest or the most expensive action, such that the other chunks have an
    average task.  A total that these can meet, all chunks together can meet.
    """
    row = jnp.minimum(chunks, HORIZON)
    highest = jnp.max(tables.units)
    expensive = jnp.clip((units - HORIZON * highest // 2) // highest, 0, chunks - row)
    return row, expensive * highest


def next_log_weights(
    tables: BudgetTables, units_left: Int[Array, ""], chunks_left: Int[Array, ""]
) -> Float[Array, " A"]:
    """Return the log-weight of each action for this chunk; −∞ if the rest could not be spent exactly afterwards.

    After the last chunk only SKIP is left, so of n chunks after this one, n with this one spend.

    Args:
        tables: tables of the budget.
        units_left: units for this chunk and the later ones; a total that no sequence has is rounded down.
        chunks_left: number of chunks after this one.
    """
    last = tables.log_weight.shape[1] - 1
    left = jnp.asarray(chunks_left, jnp.int32)
    skip = jnp.where(jnp.arange(len(Action)) == Action.SKIP, 0.0, -jnp.inf)
    row, off = _folded(tables, units_left, left)
    total = tables.reachable[row, jnp.clip(units_left - off, 0, last)] + off
    rest = total - tables.units
    row, off = _folded(tables, rest, jnp.maximum(left - 1, 0))
    column = rest - off
    within = tables.log_weight[row, jnp.clip(column, 0, last)]
    after = jnp.where((column >= 0) & (column <= last), within, -jnp.inf)
    far = jnp.where(jnp.isfinite(after), tables.far, -jnp.inf)
    spending = jnp.where(left > HORIZON, far, tables.log_share + after)
    priced = jnp.where(tables.units <= units_left, tables.far, -jnp.inf)
    spending = jnp.where(tables.corpus_left < 0, spending, priced)
    return jnp.where(left > 0, spending, skip)


def cuts(tables: BudgetTables, units_left: Int[Array, ""], chunks_left: Int[Array, ""]) -> Float[Array, " 3"]:
    """Return the probabilities of an action below UPDATE_1, below UPDATE_2, below UPDATE_4.

    Arguments are those of :func:`next_log_weights`.  The interval of an impossible action is empty, whatever the
    rounding.
    """
    logits = next_log_weights(tables, units_left, chunks_left)
    skip, one, two, four = jnp.exp(logits - jnp.max(logits))
    # In this order of summation, the 0 of an impossible action changes neither sum.
    below = jnp.stack([skip, skip + one, skip + one + two])
    above = jnp.stack([four + two + one, four + two, four])
    return below / (below + above)


def stream_units(tables: BudgetTables, chunks: Int[Array, ""] | int) -> Int[Array, ""]:
    """Return the budget of a stream of so many chunks in whole units, rounded down."""
    # A product such as 17.9999 in float32 is 18.
    return jnp.floor(tables.units_per_chunk * jnp.asarray(chunks, jnp.float32) + 1e-3).astype(jnp.int32)


def units_left(tables: BudgetTables, spent: Int[Array, ""], observation: Observation) -> Int[Array, ""]:
    """Return the units of the budget that are left after ``spent`` on this stream.

    ``observation.budget_left`` would not do: if an update costs little compared with SKIP, float32 cannot hold it.
    """
    own = stream_units(tables, observation.chunk_index + observation.chunks_left + 1)
    return jnp.where(tables.corpus_left < 0, own, tables.corpus_left) - spent


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
