"""Every method of the table has its policy, and a rule that lacks something says what."""

from __future__ import annotations

import jax
import pytest

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.names import METHODS, ORACLE_METHODS, MethodName
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.build import policy_of
from ponderttt.policies.calibration import calibrate
from ponderttt.policies.rules import Fixed, Random, Schedule
from ponderttt.policies.signal_rules import Adaptive, Percentile, Reconstruction
from ponderttt.settings.rules import RulesConfig
from tiny_policies import learned_policies

FLOPS = (1.0, 1.041, 1.082, 1.164)
CALIBRATION = calibrate({"entropy": [1.0, 2.0], "loss": [2.0, 3.0], "reconstruction": [0.1, 0.2]})
RULES = RulesConfig(allocation=(0.4, 0.3, 0.2, 0.1), ema_step=0.2, schedule=("UPDATE_4", "SKIP"))


def build(method, budget=1.05, costs=FLOPS, calibration=CALIBRATION, rules=RULES):
    return policy_of(method, budget=budget, costs=costs, calibration=calibration, rules=rules)


@pytest.mark.parametrize(
    ("method", "policy"),
    [
        ("skip", Fixed(Action.SKIP, FLOPS)),
        ("update_1", Fixed(Action.UPDATE_1, FLOPS)),
        ("update_2", Fixed(Action.UPDATE_2, FLOPS)),
        ("update_4", Fixed(Action.UPDATE_4, FLOPS)),
        ("in_chunk", Fixed(Action.UPDATE_1, FLOPS)),
        ("transductive", Fixed(Action.UPDATE_1, FLOPS)),
        ("shuffled", Fixed(Action.UPDATE_1, FLOPS)),
        ("sign_flipped", Fixed(Action.UPDATE_1, FLOPS)),
        ("other_stream", Fixed(Action.UPDATE_1, FLOPS)),
        ("random", Random(1.05, FLOPS)),
        ("schedule", Schedule((Action.UPDATE_4, Action.SKIP), FLOPS)),
        ("entropy", Percentile("entropy", (1.0, 2.0), 1.05, FLOPS, RULES.allocation)),
        ("loss", Percentile("loss", (2.0, 3.0), 1.05, FLOPS, RULES.allocation)),
        ("reconstruction", Reconstruction((0.1, 0.2), 1.05, FLOPS, RULES.allocation, 0.2)),
        ("adaptive", Adaptive((2.0, 3.0), 1.05, FLOPS, 0.2)),
    ],
)
def test_a_method_has_its_policy_with_the_settings_of_the_config(method, policy):
    assert build(method) == policy


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ORACLE_METHODS])
def test_every_method_decides_something_that_a_record_can_hold(method, seen):
    trained = learned_policies().get(MethodName(method))
    if trained is None:
        policy = build(method, budget=3.0, costs=NOMINAL_COSTS)
    else:
        policy = trained.policy(3.0, NOMINAL_COSTS)
    decision = jax.jit(policy.decide)(policy.params, policy.init(), seen, jax.random.key(0))
    assert 0 <= int(decision.action) < 4
    assert decision.cuts.shape == (3,)
    assert decision.score.shape == decision.rank.shape == ()
    # The state keeps its shape and type from chunk to chunk, so that streams can be stacked.
    shapes = lambda state: [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]  # noqa: E731
    assert shapes(policy.init()) == shapes(decision.state)


@pytest.mark.parametrize("method", ORACLE_METHODS)
def test_oracles_are_replays_and_have_no_policy(method):
    with pytest.raises(ValueError, match="replays"):
        build(method)


def test_an_unknown_method_is_an_error():
    with pytest.raises(ValueError, match="unknown method 'gumbel'"):
        build("gumbel")


@pytest.mark.parametrize("method", ["entropy", "loss", "reconstruction", "adaptive"])
def test_a_rule_without_its_calibration_says_what_to_calibrate(method):
    with pytest.raises(PonderTTTError, match=f"the rule '{method}' has no calibration: calibrate"):
        build(method, calibration=None)
    with pytest.raises(PonderTTTError, match="the calibration has no signal"):
        build(method, calibration=calibrate({"other": [1.0]}))


def test_a_budget_that_does_not_exist_is_refused_and_one_that_is_not_held_is_ignored():
    for method in ("random", "entropy", "reconstruction", "adaptive"):
        with pytest.raises(PonderTTTError, match="no mixture of actions"):
            build(method, budget=3.0)
    for method in ("skip", "schedule", "shuffled"):
        assert build(method, budget=3.0).budget is None


@pytest.mark.parametrize("schedule", [(), ("UPDATE_1", "UPDATE_3")])
def test_a_schedule_without_known_actions_is_refused(schedule):
    with pytest.raises(PonderTTTError, match=r"^schedule"):
        build("schedule", rules=RulesConfig(schedule=schedule))


def test_without_an_allocation_shares_are_those_of_the_budget():
    assert build("loss", rules=RulesConfig()).shares is None
