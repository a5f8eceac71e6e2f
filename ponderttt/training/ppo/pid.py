"""A PID controller for the Lagrange multiplier λ of a budget (Stooke et al. 2020, arXiv:2007.03964, algorithm 2).

With c the mean cost of an iteration over the limit, so that 1 is on budget:

    error  e = c − 1
    P = K_P · smoothed e
    I = K_I · S,                       S ← clip(S + e, 0, S_max)
    D = K_D · max(0, smoothed c − the same, some iterations before)
    λ = clip(P + I + D, 0, λ_max)

The form is positional: λ is computed anew from P, I and D and never added to itself.  As in the paper, D acts against
increases of the cost alone, so that it never hinders a cost that is falling, and the sum of errors is not smoothed
and never below 0.  That sum is also bounded above: a long time over budget is not paid for by as long a time under it.
P and D are smoothed and D looks back several iterations, as the authors' own program does.  What is remembered before
the first iteration is a cost at the limit, so a start at the limit gives 0 for all three.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ponderttt.settings.ppo import PidConfig


class PidState(NamedTuple):
    """What the controller remembers."""

    #: Smoothed error.
    error: Float[Array, ""]
    #: Bounded sum of errors.
    total: Float[Array, ""]
    #: Smoothed cost over the limit.
    cost: Float[Array, ""]
    #: The same after each of the last iterations, the oldest first.
    history: Float[Array, " K"]


class PidTerms(NamedTuple):
    """The parts of λ, and λ itself."""

    p: Float[Array, ""]
    i: Float[Array, ""]
    d: Float[Array, ""]
    lambda_: Float[Array, ""]


def start(config: PidConfig) -> PidState:
    """Before the first iteration: as if the cost had always been at the limit."""
    zero, one = jnp.asarray(0.0), jnp.asarray(1.0)
    return PidState(zero, zero, one, jnp.ones(config.derivative_span))


def step(
    config: PidConfig, state: PidState, cost_over_limit: Float[Array, ""] | float
) -> tuple[PidState, PidTerms]:
    """λ for an iteration whose mean cost, divided by the limit, is ``cost_over_limit``; traceable."""
    keep = config.smoothing
    error = jnp.asarray(cost_over_limit, jnp.float32) - 1
    smooth_error = keep * state.error + (1 - keep) * error
    # Written as a step towards the cost, so that a cost at the limit leaves exactly 1.
    cost = state.cost + (1 - keep) * (error + 1 - state.cost)
    total = jnp.clip(state.total + error, 0.0, config.integral_max)
    p = config.proportional * smooth_error
    i = config.integral * total
    d = config.derivative * jnp.maximum(0.0, cost - state.history[0])
    history = jnp.append(state.history[1:], cost)
    after = PidState(smooth_error, total, cost, history)
    return after, PidTerms(p, i, d, jnp.clip(p + i + d, 0.0, config.lambda_max))
