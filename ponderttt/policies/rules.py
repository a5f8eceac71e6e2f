"""Policies that are not trained: a fixed action, and random actions at a matched mean cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ponderttt.actions import Action
from ponderttt.policies.base import Decision, Observation


@dataclass(frozen=True)
class Fixed:
    """The same action after every chunk."""

    action: Action
    budget: float | None = None

    @property
    def params(self) -> Any:
        """The action's index."""
        return jnp.asarray(int(self.action))

    def init(self) -> Any:
        """Nothing to remember."""
        return ()

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`."""
        return Decision(state, params, jnp.asarray(jnp.nan))


def matched_probabilities(mean_cost: float) -> Float[np.ndarray, " A"]:
    """The distribution of maximum entropy over the actions whose mean nominal cost is ``mean_cost``.

    It has the form p_a ∝ exp(−λ·c_a); λ is found by bisection.

    Raises:
        ValueError: ``mean_cost`` is not strictly between the cheapest and the dearest action.
    """
    costs = np.array([action.nominal_cost for action in Action])
    if not costs.min() < mean_cost < costs.max():
        raise ValueError(
            f"no mixture of actions has a mean cost of {mean_cost}: {costs.min()} < cost < {costs.max()}"
        )

    def tilted(rate: float) -> Float[np.ndarray, " A"]:
        weights = np.exp(-rate * (costs - costs.min()) - np.max(-rate * (costs - costs.min())))
        return weights / weights.sum()

    low, high = -50.0, 50.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if tilted(middle) @ costs > mean_cost else (low, middle)
    return tilted(0.5 * (low + high))


@dataclass(frozen=True)
class Random:
    """Actions drawn anew after every chunk, with a mean nominal cost of ``budget``; the rate-matched control."""

    budget: float | None
    params: Any = field(init=False, compare=False)

    def __post_init__(self) -> None:
        assert self.budget is not None
        object.__setattr__(self, "params", jnp.log(jnp.asarray(matched_probabilities(self.budget))))

    def init(self) -> Any:
        """Nothing to remember."""
        return ()

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`."""
        return Decision(state, jax.random.categorical(key, params), jnp.asarray(jnp.nan))
