"""A bandit to train on: one chunk is a whole stream, and one feature tells what an update of it is worth."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.networks import ActorCritic
from ponderttt.seeds import named_key
from ponderttt.settings.ppo import PPOConfig
from ponderttt.training.ppo import losses
from ponderttt.training.ppo.advantages import gae, normalise
from ponderttt.training.ppo.update import Batch, Stats, optimiser, update

TIME, ENVIRONMENTS, INPUTS = 16, 8, 4
COSTS = jnp.asarray(NOMINAL_COSTS)
#: Of ``iterations`` that tests choose themselves, with rates that stay.
CONFIG = PPOConfig(
    environments=ENVIRONMENTS, rollout=TIME, learning_rate=3e-3, final_learning_rate=3e-3, entropy_weight=0.0
)


class Learner(NamedTuple):
    """All that belongs to the training of one seed."""

    graph: Any
    params: Any
    opt_state: optax.OptState
    seed: int
    iteration: int = 0


def start(seed: int) -> Learner:
    graph, params = nnx.split(ActorCritic(INPUTS, rngs=nnx.Rngs(named_key(seed, "network"))))
    return Learner(graph, params, optimiser(CONFIG, 0.0).init(params), seed)


@partial(jax.jit, static_argnums=(0, 4))
def gather(graph: Any, params: Any, key: Any, lam: Any, always_pays: bool) -> tuple[Batch, Any]:
    """A rollout, chunk after chunk as a stream would be played, and its mean cost.

    The reward of an action is its share of UPDATE_4's steps, times −1 where the first feature is negative (or
    anyway +1, when updates always pay).  UPDATE_2 is forbidden where the second feature is negative.
    """

    def chunk(_: None, key: Any) -> tuple[None, Any]:
        seen, choice = jax.random.split(key)
        features = jax.random.normal(seen, (ENVIRONMENTS, INPUTS))
        allowed = jnp.ones((ENVIRONMENTS, 4), bool).at[:, 2].set(features[:, 1] >= 0)
        heads = nnx.merge(graph, params)(features)
        logits = losses.masked(heads.logits, allowed)
        actions = jax.random.categorical(choice, logits)
        reward = jnp.asarray([0.0, 0.25, 0.5, 1.0])[actions]
        reward = reward if always_pays else reward * jnp.sign(features[:, 0])
        log_prob = losses.log_prob(logits, actions)
        return None, (features, actions, allowed, log_prob, heads.value, heads.cost_value, reward)

    _, played = jax.lax.scan(chunk, None, jax.random.split(key, TIME))
    features, actions, allowed, log_prob, value, cost_value, reward = played
    costs = COSTS[actions] / COSTS.max()
    ends, nothing = jnp.ones(reward.shape, bool), jnp.zeros(ENVIRONMENTS)
    gain = gae(reward, value, nothing, ends, 0.99, 0.95)
    price = gae(costs, cost_value, nothing, ends, 0.99, 0.95)
    advantage = losses.combined_advantage(normalise(gain), normalise(price), lam)
    batch = Batch(
        features, actions, allowed, log_prob, advantage, value, gain + value, cost_value, price + cost_value
    )
    return batch, jnp.mean(COSTS[actions])


def advance(
    learner: Learner, lam: Any = 0.0, always_pays: bool = False, config: PPOConfig = CONFIG
) -> tuple[Learner, Stats, Any]:
    """One iteration: the learner after it, what the update did, and the mean cost of the rollout."""
    keys = [named_key(learner.seed, part, learner.iteration) for part in ("rollout", "shuffle")]
    batch, cost = gather(learner.graph, learner.params, keys[0], jnp.asarray(lam), always_pays)
    params, opt_state, stats = update(
        learner.graph, learner.params, learner.opt_state, batch, keys[1], config, config.entropy_weight
    )
    after = learner._replace(params=params, opt_state=opt_state, iteration=learner.iteration + 1)
    return after, stats, cost


class Bandit(NamedTuple):
    """The functions above, for tests."""

    start: Any = start
    gather: Any = gather
    advance: Any = advance
    config: PPOConfig = CONFIG


@pytest.fixture(scope="session")
def bandit() -> Bandit:
    return Bandit()
