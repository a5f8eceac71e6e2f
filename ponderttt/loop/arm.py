"""An arm while it runs: its module, policy and protocol, its state, and how it decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ponderttt.costs import Cost
from ponderttt.fast_weights.base import Fast
from ponderttt.features.history import History, observe, start
from ponderttt.features.table import FEATURES, frozen_index
from ponderttt.loop.controls import Lesson
from ponderttt.loop.page import Page
from ponderttt.loop.programs import ModulePrograms
from ponderttt.policies.base import Decision, Observation, Policy
from ponderttt.seeds import named_key

ENTROPY_MEAN = frozen_index("entropy_mean")

Protocol = Literal["score_first", "in_chunk", "transductive"]
#: What a policy observes besides the arm's losses and the budget.
Signal = Literal["entropy", "reconstruction", "features"]


@dataclass
class Arm:
    """An arm with one seed.

    Attributes:
        name: name of its steps.
        programs: compiled programs of its fast weights.
        policy: what decides after each chunk.
        protocol: order of scoring and learning.
        seed: seed of random decisions and lessons.
        lesson: what an update learns from; all but ``chunk`` are controls.
        observes: signal that the policy decides by; the arm is charged for computing it.
        decide: the policy's decision for B streams, compiled once.
    """

    name: str
    programs: ModulePrograms
    policy: Policy
    protocol: Protocol
    seed: int
    lesson: Lesson = "chunk"
    observes: Signal | None = None
    decide: Callable[..., Decision] = field(init=False)

    def __post_init__(self) -> None:
        if self.protocol == "in_chunk" and not self.programs.reads_in_chunk:
            raise ValueError(f"{self.name}: these fast weights have no causal in-chunk read")
        self.decide = jax.jit(jax.vmap(type(self.policy).decide, in_axes=(None, 0, 0, 0)))

    @property
    def lesson_name(self) -> str:
        """Name of the lesson, with the seed if the lesson may depend on it."""
        return self.lesson if self.lesson == "chunk" else f"{self.lesson}/{self.seed}"


#: The updates that one stream's fast weights went through; equal pasts have equal fast weights.
Past = tuple[tuple[str, int, int], ...]


@dataclass
class ArmState:
    """State of an arm over the B streams of a group.

    Attributes:
        fast: fast weights.
        policy: states of the policy.
        spent: cost spent so far, in the unit of the policy's budget.
        past: updates of each stream's fast weights.
        history: history of each stream, for its features.
    """

    fast: Fast
    policy: Any
    spent: Float[np.ndarray, " B"]
    past: list[Past]
    history: list[History]


class Decided(NamedTuple):
    """A decision for B streams, what it was based on, and the cost of observing that for each."""

    decision: Decision
    features: Float[np.ndarray, "B F"]
    reconstruction: Float[np.ndarray, " B"]
    budget_left: Float[np.ndarray, " B"]
    cost: Cost


def initial_state(arm: Arm, size: int) -> ArmState:
    """Return fresh fast weights and policy states for a group of ``size`` streams."""
    repeat = lambda tree: jax.tree.map(lambda leaf: jnp.stack([leaf] * size), tree)  # noqa: E731
    fast = arm.programs.reset(arm.programs.slow).value
    return ArmState(repeat(fast), repeat(arm.policy.init()), np.zeros(size), [()] * size, [start()] * size)


def decide(arm: Arm, state: ArmState, page: Page, loss: Float[np.ndarray, " B"] | None) -> Decided:
    """Let the policy decide; without a ``loss`` chunk t is not read yet, and the policy sees nothing of it."""
    t, size = page.t, page.size
    lengths = np.array([len(stream.hidden) for stream in page.streams])
    budget = np.inf if arm.policy.budget is None else arm.policy.budget
    left = (budget * lengths - state.spent).astype(np.float32)
    frozen = entropy = reconstruction = np.full(size, np.nan)
    features, cost = np.full((size, len(FEATURES)), np.nan), Cost(0.0, 0.0)
    if loss is not None:
        frozen = np.array([stream.loss_frozen[t] for stream in page.streams])
        entropy = np.array([stream.features[t][ENTROPY_MEAN] for stream in page.streams])
        ran = page.once(
            (id(arm.programs), "reconstruction", tuple(state.past)),
            lambda: page.reconstruction(arm.programs, state.fast),
        )
        reconstruction = np.asarray(ran.value)
        if arm.observes in ("reconstruction", "features"):
            cost = Cost(ran.flops / size, ran.seconds / size)
        features = np.stack(
            [
                observe(
                    stream.features[t],
                    state.history[i],
                    loss=float(loss[i]),
                    loss_frozen=float(frozen[i]),
                    reconstruction=float(reconstruction[i]),
                    chunk_index=t,
                    chunks_left=int(lengths[i]) - t - 1,
                    budget_left=float(left[i]),
                    budget=float(budget),
                )
                for i, stream in enumerate(page.streams)
            ]
        )
    observation = Observation(
        chunk_index=jnp.full(size, t),
        chunks_left=jnp.asarray(lengths - t - 1),
        loss=jnp.asarray(np.full(size, np.nan) if loss is None else loss, jnp.float32),
        loss_frozen=jnp.asarray(frozen, jnp.float32),
        entropy=jnp.asarray(entropy, jnp.float32),
        reconstruction=jnp.asarray(reconstruction, jnp.float32),
        budget_left=jnp.asarray(left),
        features=jnp.asarray(features, jnp.float32),
    )
    keys = jnp.stack([named_key(arm.seed, "policy", stream.stream_id, t) for stream in page.streams])
    decision = arm.decide(arm.policy.params, state.policy, observation, keys)
    return Decided(decision, features, reconstruction, left, cost)
