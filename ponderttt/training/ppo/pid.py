"""A PID controller for the Lagrange multiplier λ of a budget (Stooke et al. 2020, arXiv:2007.03964, algorithm 2).

Let c be the mean cost of an iteration divided by the limit, so that 1 is on budget:

    error  e = c − 1
    P = K_P · smoothed e
    I = K_I · S,                       S ← clip(S + e, 0, S_max)
    D = K_D · max(0, smoothed c − smoothed c some iterations earlier)
    λ = clip(P + I + D, 0, λ_max)

The form is positional: λ is computed from P, I and D in each iteration and never added to itself.  As in the paper, D acts
on increases of the cost only, so it never slows a falling cost; the sum of errors is not smoothed and never below 0.
The sum is also bounded above, so a long time over budget does not cause an equally long time under it.  P and D are
smoothed, and D looks back several iterations, as in the authors' code.  The history starts with a cost at the limit, so
P, I and D are 0 if the first cost is at the limit.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ponderttt.settings.ppo import PidConfig


class PidState(NamedTuple):
    """State of the controller."""

    #: Smoothed error.
    error: Float[Array, ""]
    #: Bounded sum of errors.
    total: Float[Array, ""]
    #: Smoothed cost over the limit.
    cost: Float[Array, ""]
    #: Smoothed cost over the limit after each of the last iterations, oldest first.
    history: Float[Array, " K"]


class PidTerms(NamedTuple):
    """P, I, D and λ."""

    p: Float[Array, ""]
    i: Float[Array, ""]
    d: Float[Array, ""]
    lambda_: Float[Array, ""]


def start(config: PidConfig) -> PidState:
    """Return the state before the first iteration, as if the cost had always been at the limit."""
    zero, one = jnp.asarray(0.0), jnp.asarray(1.0)
    return PidState(zero, zero, one, jnp.ones(config.derivative_span))


def step(
    config: PidConfig, state: PidState, cost_over_limit: Float[Array, ""] | float
) -> tuple[PidState, PidTerms]:
    """Return the next state and λ for an iteration with mean cost / limit = ``cost_over_limit``; traceable."""
    keep = config.smoothing
    error = jnp.asarray(cost_over_limit, jnp.float32) - 1
    smooth_error = keep * state.error + (1 - keep) * error
    # As a step towards the cost, so that a cost at the limit gives exactly 1.
    cost = state.cost + (1 - keep) * (error + 1 - state.cost)
    total = jnp.clip(state.total + error, 0.0, config.integral_max)
    p = config.proportional * smooth_error
    i = config.integral * total
    d = config.derivative * jnp.maximum(0.0, cost - state.history[0])
    history = jnp.append(state.history[1:], cost)
    after = PidState(smooth_error, total, cost, history)
    return after, PidTerms(p, i, d, jnp.clip(p + i + d, 0.0, config.lambda_max))
