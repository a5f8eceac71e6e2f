"""Where one feature tells which chunks' update pays, PPO and the regression find it; where none pays, they learn so.

Gates are in ``test_gate.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planted import CHUNKS, TELLS, PlantedWeights, planted_stream, worth
from ponderttt.actions import Action
from ponderttt.features import normalise
from ponderttt.features.table import frozen_index
from ponderttt.files.checkpoints import Checkpoints
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.loop.arm import Arm
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.stream import run_streams
from ponderttt.policies.base import Decision, Observation, Policy
from ponderttt.policies.budget import NOMINAL_COSTS, budget_tables, spend_by_rank, stream_units
from ponderttt.policies.learned import ActorPolicy, Linear, RegressionPolicy, without_budget
from ponderttt.policies.rules import Random, without_rank
from ponderttt.policies.signal_rules import percentile_rank
from ponderttt.settings.ppo import PPOConfig
from ponderttt.training.ppo.train import train_ppo
from ponderttt.training.regression import fit_ridge
from ponderttt.training.rollouts import demonstrate
from ponderttt.training.visits import visit
from ponderttt.training.world import World

#: Room for one update on every second chunk: those that pay.
BUDGET = 2.0
PPO = PPOConfig(iterations=40, learning_rate=3e-3)


def planted_streams(name: str, first: int, count: int) -> list[FrozenChunks]:
    """Streams whose four paying chunks all come before the last, after which nothing is learned."""
    drawn = (planted_stream(f"{name} {seed}", seed) for seed in itertools.count(first))
    return list(itertools.islice((stream for stream in drawn if stream.hidden[-1, 0, 0] < 0), count))


LEARNING = planted_streams("train", 0, 40)
HELD_OUT = planted_streams("held out", 100, 40)
UNEMBEDDING = jnp.zeros((5, 2))
PROGRAMS = ModulePrograms(PlantedWeights())
GAINS = np.array([min(action.steps, 1) for action in Action])
UNITS = np.array([action.nominal_cost for action in Action], int) - 1


def best(stream: FrozenChunks, budget: float) -> float:
    """What the best actions of exactly this mean cost, SKIP after the last chunk, take off the mean loss: by dynamic programming."""
    total = round((budget - 1) * CHUNKS)
    value = np.full(total + 1, -np.inf)
    value[0] = 0.0
    for gain in worth(stream)[:-1]:
        moved = np.full((len(Action), total + 1), -np.inf)
        for action in (a for a in Action if UNITS[a] <= total):
            moved[action, UNITS[action] :] = value[: total + 1 - UNITS[action]] + GAINS[action] * gain
        value = moved.max(axis=0)
    return float(value[total])


def achieved(policy: Policy, streams: Sequence[FrozenChunks], seed: int = 0) -> float:
    """What a policy takes off the mean loss of streams, in the loop."""
    arm = Arm("learned", PROGRAMS, policy, "score_first", seed, observes="features")
    steps = run_streams([arm], Group(streams, UNEMBEDDING))["learned"]
    return float(np.mean([step.loss_frozen - step.loss for step in steps]))


def against_the_oracle(policy: Policy, budget: float) -> float:
    """Share of the oracle's gain over random decisions of the same budget, on streams that nothing was trained on."""
    oracle = float(np.mean([best(stream, budget) for stream in HELD_OUT]))
    chance = float(np.mean([achieved(Random(budget), HELD_OUT, seed) for seed in range(5)]))
    return (achieved(policy, HELD_OUT) - chance) / (oracle - chance)


def taught(streams: Sequence[FrozenChunks], folder: Path) -> ActorPolicy:
    """The policy that PPO makes of the random rule."""
    world = World(PROGRAMS, streams, UNEMBEDDING)
    tables = budget_tables(NOMINAL_COSTS, BUDGET)
    normaliser = normalise.fit(visit(world, tables, NOMINAL_COSTS, 4, 0, shown_budget=BUDGET).features)
    with Checkpoints(folder, "ppo", {}) as checkpoints:
        network, shares, _ = train_ppo(
            world, normaliser, 32, PPO, BUDGET, NOMINAL_COSTS, 0, checkpoints, Random(BUDGET), 4
        )
    return ActorPolicy(network, normaliser, shares, BUDGET)


class Unbound:
    """What PPO's policy does while it is trained, when nothing holds it to its budget."""

    def __init__(self, policy: ActorPolicy) -> None:
        self.params = policy.params

    def init(self) -> Any:
        return ()

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Any) -> Decision:
        seen = normalise.apply(params.normaliser, observation.features)[:32]
        action = jax.random.categorical(key, params.network(seen).logits)
        return without_rank(state, action, jnp.zeros(()))


def regressed(streams: Sequence[FrozenChunks], sequences: int = 4) -> RegressionPolicy:
    """The policy of the ridge regression."""
    world = World(PROGRAMS, streams, UNEMBEDDING)
    visits = visit(world, budget_tables(NOMINAL_COSTS, BUDGET), NOMINAL_COSTS, sequences, 0, with_gains=True)
    normaliser = normalise.fit(visits.features)
    seen = normalise.apply(normaliser, without_budget(jnp.asarray(visits.features, jnp.float32)))[:, :32]
    fitted = fit_ridge(np.asarray(seen), visits.gain, visits.stream, (0.1, 1.0, 10.0, 100.0))
    line = Linear(jnp.asarray(fitted.coefficients), jnp.asarray(fitted.intercept))
    scores = tuple(np.asarray(RegressionPolicy.score_of(line, seen), float).tolist())
    return RegressionPolicy(line, normaliser, scores, BUDGET)


@pytest.mark.slow
def test_ppo_comes_within_5_percent_of_the_oracle(tmp_path):
    assert against_the_oracle(taught(LEARNING, tmp_path), BUDGET) > 0.95


def told() -> float:
    """What ranking the one feature that tells takes off, spent as every score is spent."""
    tables = budget_tables(NOMINAL_COSTS, BUDGET)
    tells = [stream.features[:, frozen_index(TELLS)] for stream in LEARNING]
    known = jnp.asarray(np.concatenate([values[:-1] for values in tells]))
    decide = jax.jit(
        lambda left, after, score: spend_by_rank(tables, left, after, percentile_rank(score, known))
    )
    gains = []
    for stream in HELD_OUT:
        left, taken = stream_units(tables, CHUNKS), 0.0
        for t, gain in enumerate(worth(stream)):
            spent = decide(left, CHUNKS - t - 1, stream.features[t, frozen_index(TELLS)])
            left, taken = left - spent.units, taken + GAINS[int(spent.action)] * gain
        gains.append(taken)
    return float(np.mean(gains))


@pytest.mark.slow
def test_the_regression_comes_within_5_percent_of_the_feature_that_tells():
    """Spent chunk by chunk, neither reaches the oracle, which knows what comes."""
    policy = regressed(planted_streams("train", 0, 160), sequences=1)
    chance = float(np.mean([achieved(Random(BUDGET), HELD_OUT, seed) for seed in range(5)]))
    assert (achieved(policy, HELD_OUT) - chance) / (told() - chance) > 0.95
    assert against_the_oracle(policy, BUDGET) > 0.8


@pytest.mark.slow
def test_where_no_update_pays_ppo_learns_to_skip_and_the_regression_to_expect_a_loss(tmp_path):
    harmful = [planted_stream(f"harm {seed}", seed, pays=-0.3, costs=-0.3) for seed in range(20)]
    policy = taught(harmful, tmp_path)
    world = World(PROGRAMS, harmful, UNEMBEDDING)
    _, actions = demonstrate(world, Unbound(policy), BUDGET, NOMINAL_COSTS, 1)
    # After the last chunk of a stream there is nothing to lose.
    assert np.mean(actions.reshape(len(harmful), CHUNKS)[:, :-1] == Action.SKIP) > 0.95
    assert np.mean(np.array(regressed(harmful).calibration) < 0) > 1 - 1.5 / CHUNKS


def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path):
    config = PPOConfig(iterations=6, rollout=16, environments=4, checkpoint_every=2)

    class Stop(Exception):
        pass

    def stop_after_five(done: int, total: int, what: str) -> None:
        if done == 5:
            raise Stop

    def run(folder: Path, progress=lambda done, total, what: None):
        world = World(PROGRAMS, LEARNING[:3], UNEMBEDDING)
        visits = visit(world, budget_tables(NOMINAL_COSTS, 3.0), NOMINAL_COSTS, 2, 0, shown_budget=3.0)
        normaliser = normalise.fit(visits.features)
        with Checkpoints(folder, "ppo", {}) as checkpoints:
            return train_ppo(
                world, normaliser, 32, config, 3.0, NOMINAL_COSTS, 0, checkpoints, Random(3.0), 2, progress
            )

    whole, shares, _ = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "parts", stop_after_five)
    resumed, resumed_shares, log = run(tmp_path / "parts")
    assert [line["iteration"] for line in log] == [1, 2, 3, 4, 5, 6]
    assert resumed_shares == shares
    for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        assert np.array_equal(one, two)
