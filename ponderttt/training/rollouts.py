"""Rollouts: trajectories of a policy over training streams, several in parallel.

All environments read the same streams in the same order, so each chunk is opened and projected once; they differ in the
sampled actions.  Observations are computed by the same function as in the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ponderttt.actions import Action
from ponderttt.features.history import History, observe, remember, start
from ponderttt.features.table import FEATURES
from ponderttt.loop.arm import ENTROPY_MEAN
from ponderttt.policies.base import Observation, Policy
from ponderttt.seeds import named_key
from ponderttt.training.world import Read, Updates, World


class Choice(NamedTuple):
    """Decisions of a policy in E environments."""

    action: Int[np.ndarray, " E"]
    log_prob: Float[np.ndarray, " E"]
    #: Estimates of the discounted future reward and cost.
    value: Float[np.ndarray, " E"]
    cost_value: Float[np.ndarray, " E"]


class Rollout(NamedTuple):
    """N steps of E environments."""

    #: Raw features, in the order of ``features.table.NAMES``.
    features: Float[np.ndarray, "N E F"]
    action: Int[np.ndarray, "N E"]
    log_prob: Float[np.ndarray, "N E"]
    value: Float[np.ndarray, "N E"]
    cost_value: Float[np.ndarray, "N E"]
    #: Loss of the frozen backbone on the next chunk minus the committed loss there, nats per token; 0 at the end of a stream.
    reward: Float[np.ndarray, "N E"]
    #: Cost in multiples of SKIP.
    cost: Float[np.ndarray, "N E"]
    #: True if the stream ends with this chunk.
    end: Bool[np.ndarray, "N E"]
    #: Decision after step N; meaningless where the last step is an end.
    last: Choice


class Episode:
    """One pass over a stream.

    Args:
        world: the streams.
        stream: index of the stream.
        budget: mean cost per chunk that the policy observes, in multiples of SKIP; infinite for none.
        costs: cost of each of the four actions.
    """

    def __init__(self, world: World, stream: int, budget: float, costs: Sequence[float]) -> None:
        self.world, self.stream, self.budget, self.costs = world, stream, budget, costs
        self.length = world.length(stream)
        self.t = 0
        self.updates: Updates = ()
        self.spent = 0.0
        self._history: History = start()

    @property
    def read(self) -> Read:
        """Result of scoring the current chunk."""
        return self.world.read(self.stream, self.t, self.updates)

    def observe(self) -> Float[np.ndarray, " F"]:
        """Return the features of the current chunk."""
        read, stream = self.read, self.world.streams[self.stream]
        row: Float[np.ndarray, " F"] = observe(
            stream.features[self.t],
            self._history,
            loss=read.loss,
            loss_frozen=self.world.loss_frozen(self.stream, self.t),
            reconstruction=read.reconstruction,
            chunk_index=self.t,
            chunks_left=self.length - self.t - 1,
            budget_left=float(np.float32(self.budget * self.length - self.spent)),
            budget=self.budget,
        )
        return row

    def observation(self, features: Float[np.ndarray, " F"]) -> Observation:
        """Return the observation that a policy gets in the loop, for the current chunk."""
        read, stream = self.read, self.world.streams[self.stream]
        as_array = lambda value: jnp.asarray(value, jnp.float32)  # noqa: E731
        return Observation(
            chunk_index=jnp.asarray(self.t),
            chunks_left=jnp.asarray(self.length - self.t - 1),
            loss=as_array(read.loss),
            loss_frozen=as_array(self.world.loss_frozen(self.stream, self.t)),
            entropy=as_array(stream.features[self.t][ENTROPY_MEAN]),
            reconstruction=as_array(read.reconstruction),
            budget_left=as_array(self.budget * self.length - self.spent),
            features=as_array(features),
        )

    def act(self, action: Action) -> bool:
        """Adapt, go to the next chunk, and return True if the stream has ended.

        After the last chunk the action is SKIP, as in the loop.
        """
        read, action = self.read, action if self.t + 1 < self.length else Action.SKIP
        self._history = remember(
            self._history,
            loss=read.loss,
            loss_frozen=self.world.loss_frozen(self.stream, self.t),
            reconstruction=read.reconstruction,
            action=int(action),
            cost=self.costs[action],
        )
        self.spent += self.costs[action]
        self.updates = self.world.learn(self.stream, self.t, self.updates, action)
        self.t += 1
        return self.t == self.length

    def reward(self) -> float:
        """Return the gain of the updates so far on the current chunk: frozen minus committed loss, nats per token."""
        return self.world.loss_frozen(self.stream, self.t) - self.read.loss


def demonstrate(
    world: World, policy: Policy, budget: float, costs: Sequence[float], seed: int, number: int = 0
) -> tuple[Float[np.ndarray, "M F"], Int[np.ndarray, " M"]]:
    """Run a policy once over each stream; return the features of every chunk and its actions.

    ``number`` distinguishes demonstrations of a random policy.
    """
    features, actions = [], []
    decide = jax.jit(policy.decide)
    for stream in range(len(world.streams)):
        episode, state, ended = Episode(world, stream, budget, costs), policy.init(), False
        while not ended:
            row = episode.observe()
            key = named_key(seed, "demonstration", number, world.streams[stream].stream_id, episode.t)
            decision = decide(policy.params, state, episode.observation(row), key)
            state, action = decision.state, Action(int(decision.action))
            features.append(row)
            actions.append(int(action))
            ended = episode.act(action)
    return np.array(features), np.array(actions)


def rollout(
    world: World,
    choose: Callable[[Float[np.ndarray, "E F"], int], Choice],
    order: Sequence[int],
    *,
    steps: int,
    environments: int,
    budget: float,
    costs: Sequence[float],
) -> Rollout:
    """Run a policy for ``steps`` chunks in each of E environments; when a stream ends, the next of ``order`` starts.

    Args:
        world: the streams.
        choose: maps the features of E chunks and the step to a :class:`Choice`.
        order: order of the streams, repeated if they end before the steps do.
        steps: N.
        environments: E.
        budget: mean cost per chunk, in multiples of SKIP.
        costs: cost of each of the four actions.
    """
    place = 0
    episodes = [Episode(world, order[place], budget, costs) for _ in range(environments)]
    shape = (steps, environments)
    features = np.empty((*shape, len(FEATURES)))
    reward, cost, end = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    choices = []
    for n in range(steps):
        features[n] = [episode.observe() for episode in episodes]
        choices.append(choose(features[n], n))
        for e, episode in enumerate(episodes):
            before = episode.spent
            end[n, e] = episode.act(Action(int(choices[-1].action[e])))
            cost[n, e] = episode.spent - before
        # All environments are at the same chunk of the same stream, so they end together.
        if end[n].all():
            place = (place + 1) % len(order)
            episodes = [Episode(world, order[place], budget, costs) for _ in range(environments)]
        else:
            reward[n] = [episode.reward() for episode in episodes]
    last = choose(np.array([episode.observe() for episode in episodes]), steps)
    stacked = Choice(*(np.stack(field) for field in zip(*choices, strict=True)))
    return Rollout(
        features,
        stacked.action,
        stacked.log_prob,
        stacked.value,
        stacked.cost_value,
        reward,
        cost,
        end,
        last,
    )
