"""Learned policies hold their budget to the unit, rank as they were calibrated, and are refused where they do not belong."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.actions import Action
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.features.normalise import apply
from ponderttt.features.table import FEATURES, index
from ponderttt.files.manifest import MANIFEST
from ponderttt.names import LEARNED_METHODS, MethodName
from ponderttt.policies.base import Observation
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.learned import ActorPolicy, GatePolicy, Linear, RegressionPolicy, without_budget
from ponderttt.policies.trained import ARRAYS, Trained, open_policy, save_policy
from tiny_policies import NORMALISER, learned_policies, network_of

LENGTH = 6


def observation(t: int, features: np.ndarray, length: int = LENGTH) -> Observation:
    number = lambda value: jnp.asarray(value, jnp.float32)  # noqa: E731
    return Observation(
        jnp.asarray(t),
        jnp.asarray(length - t - 1),
        *(number(1.0),) * 4,
        number(0.0),
        jnp.asarray(features, jnp.float32),
    )


def play(policy, seed: int, length: int = LENGTH) -> list[Action]:
    """Decide on a stream of random features."""
    rows = np.random.default_rng(seed).normal(size=(length, len(FEATURES)))
    decide, state, actions = jax.jit(policy.decide), policy.init(), []
    for t in range(length):
        key = jax.random.fold_in(jax.random.key(seed), t)
        decision = decide(policy.params, state, observation(t, rows[t], length), key)
        state = decision.state
        actions.append(Action(int(decision.action)))
    return actions


@pytest.mark.parametrize("method", ["regression", "gumbel_hard", "ppo"])
@pytest.mark.parametrize(("budget", "total"), [(3.5, 21.0), (2.0, 12.0), (5.0, 30.0)])
def test_every_stream_costs_exactly_its_budget(method, budget, total):
    policy = learned_policies()[MethodName(method)].policy(budget, NOMINAL_COSTS)
    for seed in range(5):
        assert sum(action.nominal_cost for action in play(policy, seed)) == total


def test_at_a_budget_of_two_six_chunks_have_three_updates_and_nothing_else():
    policy = learned_policies()[MethodName("gumbel_hard")].policy(2.0, NOMINAL_COSTS)
    for seed in range(5):
        assert sorted(play(policy, seed)) == [Action.SKIP] * 3 + [Action.UPDATE_1] * 3


def test_a_score_is_linear_in_what_the_regression_sees_and_ranked_among_training_chunks():
    network = network_of("regression")
    assert isinstance(network, Linear)
    policy = RegressionPolicy(network, NORMALISER, (-1e6, 1e6), 3.0)
    row = np.random.default_rng(0).normal(size=len(FEATURES))
    decision = policy.decide(policy.params, policy.init(), observation(0, row), jax.random.key(0))
    seen = np.asarray(apply(NORMALISER, without_budget(jnp.asarray(row, jnp.float32))))[:32]
    assert float(decision.score) == pytest.approx(float(seen @ network.coefficients + 0.3), rel=1e-5)
    assert float(decision.rank) == 0.5


def test_what_is_left_of_the_budget_changes_no_score():
    policy = learned_policies()[MethodName("gumbel_hard")].policy(3.0, NOMINAL_COSTS)
    assert isinstance(policy, GatePolicy)
    row = np.random.default_rng(0).normal(size=len(FEATURES))
    other = row.copy()
    other[[index("budget_remaining"), index("budget_rate")]] = 0.1
    scores = [
        float(policy.decide(policy.params, policy.init(), observation(0, r), jax.random.key(0)).score)
        for r in (row, other)
    ]
    assert scores[0] == scores[1]


def test_an_actor_draws_its_own_shares_given_the_total():
    """Two chunks before the last, 9 to spend: UPDATE_1 and UPDATE_2 in either order; SKIP leaves 8, which no action costs.

    Then P(first is UPDATE_1) ∝ π₁·w(UPDATE_2) and P(first is UPDATE_2) ∝ π₂·w(UPDATE_1), with w the average shares.
    """
    network = network_of("ppo")
    shares = (0.4, 0.3, 0.2, 0.1)
    policy = ActorPolicy(network, NORMALISER, shares, 10 / 3)
    row = np.random.default_rng(1).normal(size=len(FEATURES))
    seen = apply(NORMALISER, jnp.asarray(row, jnp.float32))[:32]
    own = np.asarray(jax.nn.softmax(network(seen).logits), np.float64)
    expected = own[1] * shares[2] / (own[1] * shares[2] + own[2] * shares[1])
    first = observation(0, row, 3)
    decide = jax.jit(jax.vmap(lambda key: policy.decide(policy.params, policy.init(), first, key).action))
    actions = np.asarray(decide(jax.random.split(jax.random.key(0), 4000)))
    assert set(actions.tolist()) == {1, 2}
    assert np.mean(actions == 1) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("method", LEARNED_METHODS)
def test_a_saved_policy_decides_as_it_did(method, tmp_path):
    trained = learned_policies()[MethodName(method)]
    save_policy(trained, tmp_path, {"model_digest": "m", "module_digest": "w"}, [{"step": 1}])
    again, facts = open_policy(tmp_path, "make table", model_digest="m", module_digest="w")
    assert facts["policy"] == method
    policies = [t.policy(3.0, NOMINAL_COSTS) for t in (trained, again)]
    row = np.random.default_rng(2).normal(size=len(FEATURES))
    found = [p.decide(p.params, p.init(), observation(0, row), jax.random.key(3)) for p in policies]
    assert int(found[0].action) == int(found[1].action)
    assert float(found[0].score) == float(found[1].score)
    assert float(found[0].scale) == float(found[1].scale)
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 1}


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        ({"model_digest": "other"}, "made with another model"),
        ({"module_digest": "other"}, "made with another trained adapter"),
    ],
)
def test_a_policy_is_refused_where_it_was_not_trained(fact, said, tmp_path):
    save_policy(
        learned_policies()[MethodName("regression")],
        tmp_path,
        {"model_digest": "m", "module_digest": "w"},
        [],
    )
    with pytest.raises(PonderTTTError, match=said):
        open_policy(tmp_path, "make table", **{"model_digest": "m", "module_digest": "w", **fact})


def test_a_policy_of_another_table_of_features_is_refused(tmp_path):
    save_policy(learned_policies()[MethodName("regression")], tmp_path, {}, [])
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    manifest["facts"]["features_digest"] = "older"
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(PonderTTTError, match="made with another version of the features"):
        open_policy(tmp_path, "make table")


def test_a_damaged_policy_is_named(tmp_path):
    save_policy(learned_policies()[MethodName("ppo")], tmp_path, {}, [])
    content = bytearray((tmp_path / ARRAYS).read_bytes())
    content[-3] ^= 1
    (tmp_path / ARRAYS).write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"policy\.safetensors: its sha256"):
        open_policy(tmp_path, "make table")


def test_arrays_of_another_network_are_refused(tmp_path):
    odd = Trained(MethodName("ppo"), NORMALISER, network_of("gumbel_hard"), shares=(0.25,) * 4)
    save_policy(odd, tmp_path, {}, [])
    with pytest.raises(CorruptFileError, match="not the arrays of ppo"):
        open_policy(tmp_path, "make table")
