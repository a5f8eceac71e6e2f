"""The binary gate: how its decisions are sampled in training, and its soft form at test time.

Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax", arXiv:1611.01144.  With Gumbel noise n, the
action argmax(logits + n) is a draw from softmax(logits).  Its relaxation at temperature τ,

    y = softmax((logits + n) / τ),

has a gradient.  The straight-through form uses the draw forward and the gradient of y backward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from ponderttt.actions import Action
from ponderttt.features.normalise import Normaliser, apply
from ponderttt.policies.base import Decision, Observation
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.networks import Gate
from ponderttt.policies.rules import without_rank
from ponderttt.settings.gate import GateConfig


def relaxed(
    logits: Float[Array, "*B A"], key: Key[Array, ""], temperature: Float[Array, ""] | float
) -> Float[Array, "*B A"]:
    """Return the relaxation y of a draw.

    Args:
        logits: logits of the actions.
        key: key of the Gumbel noise.
        temperature: τ, greater than 0.
    """
    return jax.nn.softmax((logits + jax.random.gumbel(key, logits.shape)) / temperature, axis=-1)


def straight_through(relaxation: Float[Array, "*B A"]) -> Float[Array, "*B A"]:
    """Return the draw of a relaxation: exactly one-hot forward, with the gradient of the relaxation backward."""
    hard = jax.nn.one_hot(jnp.argmax(relaxation, axis=-1), relaxation.shape[-1])
    # In this order the two cancel exactly: the forward value is exactly 0 or 1.
    return hard + (relaxation - jax.lax.stop_gradient(relaxation))


def temperature_at(step: int, total: int, config: GateConfig) -> float:
    """Return the temperature of one of ``total`` steps, counted from 0.

    It is ``temperature_start`` during the warm-up, then falls by the same factor at each step, and is
    ``temperature_end`` at the last step.
    """
    last = total - 1
    warm = config.warmup_share * last
    if step <= warm:
        return config.temperature_start
    cooled = (step - warm) / (last - warm)
    return config.temperature_start * (config.temperature_end / config.temperature_start) ** cooled


def gate_logits(gate: Gate, normaliser: Normaliser, features: Float[Array, "*B F"]) -> Float[Array, "*B 2"]:
    """Return a gate's logits of SKIP and UPDATE for raw features."""
    return gate(apply(normaliser, features)[..., : gate.norm.num_features])


class SoftGateParams(NamedTuple):
    """Parameters of :class:`SoftGate`; ``graph`` is static, without arrays."""

    graph: nnx.GraphDef[Gate]
    weights: Any
    normaliser: Normaliser


@dataclass(frozen=True)
class SoftGate:
    """A policy that always takes UPDATE_1 and keeps a fraction of it: the gate's probability of UPDATE.

    The update is made and charged in full, whatever fraction is kept.

    Args:
        gate: a trained gate.
        normaliser: statistics of the features that it was trained with.
        costs: costs of the four actions.
    """

    gate: Gate
    normaliser: Normaliser
    costs: tuple[float, ...] = NOMINAL_COSTS
    budget: None = None
    params: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", SoftGateParams(*nnx.split(self.gate), self.normaliser))

    def init(self) -> Any:
        """Return an empty state: the past is in the features."""
        return ()

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`; the score is the fraction that is kept."""
        gate = nnx.merge(params.graph, params.weights)
        logits = gate_logits(gate, params.normaliser, observation.features)
        share = jax.nn.softmax(logits)[1]
        return without_rank(state, int(Action.UPDATE_1), share)._replace(scale=share)
