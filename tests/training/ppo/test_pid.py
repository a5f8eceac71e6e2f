"""The controller of the budget: its terms worked by hand, at rest, wound up, and at both ends."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.settings.ppo import PidConfig
from ponderttt.training.ppo.pid import PidState, PidTerms, start, step

USUAL = PidConfig()


@partial(jax.jit, static_argnums=0)
def run(config: PidConfig, state: PidState, costs) -> tuple[PidState, PidTerms]:
    """The terms after each of the costs."""
    return jax.lax.scan(lambda state, cost: step(config, state, cost), state, costs)


def test_three_iterations_by_hand():
    """Smoothing ½, derivative over one iteration; costs of 1.4, 1.2 and 0.6 times the limit."""
    config = PidConfig(0.1, 0.01, 0.05, smoothing=0.5, derivative_span=1)
    _, terms = run(config, start(config), jnp.asarray([1.4, 1.2, 0.6]))
    # Errors 0.4, 0.2, −0.4; smoothed 0.2, 0.2, −0.1; sums 0.4, 0.6, 0.2; smoothed costs 1.2, 1.2, 0.9.
    np.testing.assert_allclose(terms.p, [0.02, 0.02, -0.01], atol=1e-7)
    np.testing.assert_allclose(terms.i, [0.004, 0.006, 0.002], atol=1e-7)
    np.testing.assert_allclose(terms.d, [0.01, 0.0, 0.0], atol=1e-7)
    np.testing.assert_allclose(terms.lambda_, [0.034, 0.026, 0.0], atol=1e-7)


def test_at_the_limit_nothing_happens_from_the_first_iteration_on():
    """The history before the start is the limit and not 0: otherwise a derivative of the whole cost would come first."""
    _, terms = run(USUAL, start(USUAL), jnp.ones(50))
    assert not np.any(np.stack(terms))


def test_the_derivative_answers_a_rise_over_its_span_and_not_a_fall():
    config = PidConfig(0.0, 0.0, 0.05, smoothing=0.0, derivative_span=3)
    _, terms = run(config, start(config), jnp.asarray([1.2, 1.2, 1.2, 1.2, 0.8, 0.8]))
    np.testing.assert_allclose(terms.d, [0.01, 0.01, 0.01, 0.0, 0.0, 0.0], atol=1e-7)


def test_a_steady_error_gives_a_steady_proportional_term():
    """Positional: λ is not added to itself."""
    config = PidConfig(0.1, 0.0, 0.05)
    _, terms = run(config, start(config), jnp.full(400, 1.5))
    assert float(terms.lambda_[-1]) == pytest.approx(0.05, abs=1e-6)
    assert float(terms.d[-1]) == pytest.approx(0.0, abs=1e-6)
    assert float(terms.lambda_.max()) < 0.07


def test_in_a_closed_loop_the_cost_settles_at_the_limit_and_the_integral_holds_it_there():
    """A policy whose cost is 1.5 − ½λ times the limit: at rest λ = 1."""

    def iteration(carry, _):
        state, lam = carry
        cost = 1.5 - 0.5 * lam
        state, terms = step(USUAL, state, cost)
        return (state, terms.lambda_), (cost, terms)

    _, (costs, terms) = jax.lax.scan(iteration, (start(USUAL), jnp.asarray(0.0)), length=3000)
    assert float(costs[-1]) == pytest.approx(1.0, abs=1e-3)
    assert [float(t[-1]) for t in terms] == pytest.approx([0.0, 1.0, 0.0, 1.0], abs=2e-3)
    assert float(costs.min()) > 0.95


def test_a_long_time_over_budget_does_not_wind_the_integral_up():
    config = PidConfig(0.0, 0.01, 0.0, integral_max=50.0)
    state, terms = run(config, start(config), jnp.full(10_000, 2.0))
    assert float(terms.i[-1]) == pytest.approx(0.5)
    _, terms = run(config, state, jnp.zeros(60))
    assert int(np.argmin(terms.lambda_ > 0)) == 49


def test_a_long_time_under_budget_leaves_no_debt():
    config = PidConfig(0.0, 0.01, 0.0)
    state, _ = run(config, start(config), jnp.zeros(10_000))
    assert float(state.total) == 0.0
    _, terms = run(config, state, jnp.asarray([1.5]))
    assert float(terms.lambda_[0]) == pytest.approx(0.005)


def test_lambda_stays_between_0_and_its_largest_value():
    config = PidConfig(1.0, 0.1, 0.5, lambda_max=2.0)
    _, terms = run(config, start(config), jnp.concatenate([jnp.full(200, 12.0), jnp.zeros(2000)]))
    assert float(terms.lambda_[199]) == 2.0
    assert float(terms.lambda_[-1]) == 0.0
    assert float(terms.p[-1]) < 0
    assert np.all((terms.lambda_ >= 0) & (terms.lambda_ <= 2.0))
