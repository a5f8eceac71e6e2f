"""Gates draw as they should, learn through their draws, cool as told, and act as they say."""

from __future__ import annotations

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ponderttt.actions import Action
from ponderttt.features.normalise import CLIP, Normaliser
from ponderttt.features.table import FEATURES
from ponderttt.policies.gumbel import SoftGate, gate_logits, relaxed, straight_through, temperature_at
from ponderttt.policies.networks import Gate
from ponderttt.seeds import named_key
from ponderttt.settings.gate import GateConfig

KEYS = jax.random.split(jax.random.key(0), 4000)


def sample(logits, key, temperature):
    return straight_through(relaxed(logits, key, temperature))


MANY = jax.jit(jax.vmap(sample, in_axes=(None, 0, None)))


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_a_draw_is_one_hot_to_the_bit_and_has_the_odds_of_the_logits(temperature):
    logits = jnp.asarray([0.3, -0.8])
    draws = np.asarray(MANY(logits, KEYS, temperature))
    assert set(map(tuple, draws.tolist())) == {(0.0, 1.0), (1.0, 0.0)}
    # 4000 draws: a standard deviation of 0.007.
    assert draws[:, 1].mean() == pytest.approx(1 / (1 + math.exp(1.1)), abs=0.03)


def test_the_gradient_of_a_draw_is_that_of_its_relaxation():
    """By hand: with y = σ(((l₁ + n₁) − (l₀ + n₀)) / τ), dy/dl₁ = y(1 − y)/τ = −dy/dl₀, whatever was drawn."""
    logits, temperature = jnp.asarray([0.2, 0.5]), 0.5
    for key in KEYS[:6]:
        noise = np.asarray(jax.random.gumbel(key, (2,)), float)
        y = 1 / (1 + math.exp(-((0.5 + noise[1]) - (0.2 + noise[0])) / temperature))
        slope = jax.grad(lambda x, key=key: sample(x, key, temperature)[1])(logits)
        np.testing.assert_allclose(slope, [-y * (1 - y) / temperature, y * (1 - y) / temperature], rtol=1e-4)


def test_the_loss_of_a_draw_pulls_on_both_actions():
    """A loss of 3·UPDATE + 1·SKIP has the gradient (3 − 1)·dy/dl, not that of the action drawn alone."""
    logits, key = jnp.zeros(2), KEYS[0]
    both = jax.grad(lambda x: jnp.asarray([1.0, 3.0]) @ sample(x, key, 1.0))(logits)
    one = jax.grad(lambda x: sample(x, key, 1.0)[1])(logits)
    np.testing.assert_allclose(both, 2 * one, rtol=1e-5)
    assert float(jnp.abs(one).max()) > 0


def test_the_temperature_is_held_and_then_falls_by_one_factor_to_its_end():
    config = GateConfig(temperature_start=1.0, temperature_end=0.1, warmup_share=0.2)
    degrees = [temperature_at(step, 11, config) for step in range(11)]
    assert degrees[:3] == [1.0, 1.0, 1.0]
    factors = [after / before for before, after in pairwise(degrees[2:])]
    np.testing.assert_allclose(factors, 0.1 ** (1 / 8))
    assert degrees[10] == pytest.approx(0.1)
    # Halfway, in the geometric sense.
    assert degrees[6] == pytest.approx(math.sqrt(0.1))


@pytest.mark.parametrize(
    ("warmup", "expected"), [(0.0, [1.0, 0.1]), (1.0, [1.0, 1.0])], ids=["at once", "never"]
)
def test_a_schedule_may_cool_at_once_or_never(warmup, expected):
    config = GateConfig(warmup_share=warmup)
    assert [temperature_at(step, 2, config) for step in range(2)] == pytest.approx(expected)
    assert temperature_at(0, 1, config) == 1.0


@pytest.mark.parametrize("inputs", [32, 64])
def test_a_soft_gate_keeps_the_share_that_it_says_of_an_update_paid_in_full(inputs, seen):
    gate = Gate(inputs, rngs=nnx.Rngs(named_key(1, "gate")))
    rows = 3 * jax.random.normal(jax.random.key(2), (5, len(FEATURES)))
    normaliser = Normaliser(np.full(len(FEATURES), 0.5), np.full(len(FEATURES), 2.0))
    policy = SoftGate(gate, normaliser)
    decide = jax.jit(jax.vmap(SoftGate.decide, in_axes=(None, None, 0, None)))
    observed = jax.tree.map(lambda field: jnp.stack([field] * 5), seen)._replace(features=rows)
    decision = decide(policy.params, policy.init(), observed, KEYS[0])

    normal = np.clip((np.asarray(rows) - 0.5) / 2.0, -CLIP, CLIP)[:, :inputs]
    expected = np.asarray(jax.nn.softmax(gate(jnp.asarray(normal)))[:, 1])
    np.testing.assert_allclose(decision.scale, expected, rtol=1e-4)
    np.testing.assert_array_equal(decision.score, decision.scale)
    assert np.asarray(decision.action).tolist() == [Action.UPDATE_1] * 5
    assert np.ptp(expected) > 0.01
    logits = gate_logits(gate, normaliser, rows)
    np.testing.assert_allclose(jax.nn.softmax(logits)[:, 1], expected, rtol=1e-4)
