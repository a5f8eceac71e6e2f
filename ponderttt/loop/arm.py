"""An arm while it runs: a module, a policy and a protocol; its state over streams; and how it decides."""

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
#: What a decision is made from, beyond the arm's own losses and the budget.
Signal = Literal["entropy", "reconstruction", "features"]


@dataclass
class Arm:
    """One line of the table while it runs: a module, a policy, a protocol and a seed."""

    name: str
    programs: ModulePrograms
    policy: Policy
    protocol: Protocol
    seed: int
    #: What an update learns from; anything but the chunk is a control.
    lesson: Lesson = "chunk"
    #: Which signals the policy decides by: what it takes to have them is charged to the arm.
    observes: Signal | None = None
    #: Compiled once, used for every stream.
    decide: Callable[..., Decision] = field(init=False)

    def __post_init__(self) -> None:
        if self.protocol == "in_chunk" and not self.programs.reads_in_chunk:
            raise ValueError(f"{self.name}: these fast weights have no causal in-chunk read")
        self.decide = jax.jit(jax.vmap(type(self.policy).decide, in_axes=(None, 0, 0, 0)))

    @property
    def lesson_name(self) -> str:
        """Of the chunk's own lesson there is one; a wrong one may depend on the seed."""
        return self.lesson if self.lesson == "chunk" else f"{self.lesson}/{self.seed}"


#: What the fast weights of one stream have been through: equal pasts have equal fast weights.
Past = tuple[tuple[str, int, int], ...]


@dataclass
class ArmState:
    """Of the B streams of a group."""

    fast: Fast
    policy: Any
    #: Spent so far, in the unit of the policy's budget.
    spent: Float[np.ndarray, " B"]
    past: list[Past]
    history: list[History]


class Decided(NamedTuple):
    """A decision, what it was made from, and what it took to see that."""

    decision: Decision
    features: Float[np.ndarray, "B F"]
    reconstruction: Float[np.ndarray, " B"]
    budget_left: Float[np.ndarray, " B"]
    cost: Cost


def initial_state(arm: Arm, size: int) -> ArmState:
    """Fresh fast weights and policy states for a group of ``size`` streams."""
    repeat = lambda tree: jax.tree.map(lambda leaf: jnp.stack([leaf] * size), tree)  # noqa: E731
    fast = arm.programs.reset(arm.programs.slow).value
    return ArmState(repeat(fast), repeat(arm.policy.init()), np.zeros(size), [()] * size, [start()] * size)


def decide(arm: Arm, state: ArmState, page: Page, loss: Float[np.ndarray, " B"] | None) -> Decided:
    """Ask the policy; without a ``loss`` chunk t has not been read yet, and nothing of it is shown."""
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
