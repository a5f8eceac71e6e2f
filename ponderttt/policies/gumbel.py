"""A binary gate as a policy: how its decisions are sampled in training, and its soft form at test time.

Jang et al. 2017, "Categorical Reparameterization with Gumbel-Softmax", arXiv:1611.01144.  With Gumbel noise n, the
action argmax(logits + n) is a draw from softmax(logits).  Its relaxation at temperature τ,

    y = softmax((logits + n) / τ),

has a gradient.  The straight-through form goes forward with the draw and backward with y.
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
    """The relaxation y of a draw.

    Args:
        logits: of the actions.
        key: of the Gumbel noise.
        temperature: τ, above 0.
    """
    return jax.nn.softmax((logits + jax.random.gumbel(key, logits.shape)) / temperature, axis=-1)


def straight_through(relaxation: Float[Array, "*B A"]) -> Float[Array, "*B A"]:
    """The draw of a relaxation: exactly one-hot forward, the gradient of the relaxation backward."""
    hard = jax.nn.one_hot(jnp.argmax(relaxation, axis=-1), relaxation.shape[-1])
    # In this order the two cancel exactly, so that the forward value is 0 or 1 to the bit.
    return hard + (relaxation - jax.lax.stop_gradient(relaxation))


def temperature_at(step: int, total: int, config: GateConfig) -> float:
    """The temperature of one of ``total`` steps, counted from 0.

    It is ``temperature_start`` over the warm-up, is then lowered by the same factor at each step, and is
    ``temperature_end`` at the last.
    """
    last = total - 1
    warm = config.warmup_share * last
    if step <= warm:
        return config.temperature_start
    cooled = (step - warm) / (last - warm)
    return config.temperature_start * (config.temperature_end / config.temperature_start) ** cooled


def gate_logits(gate: Gate, normaliser: Normaliser, features: Float[Array, "*B F"]) -> Float[Array, "*B 2"]:
    """What a gate says of raw features: logits of SKIP and UPDATE."""
    return gate(apply(normaliser, features)[..., : gate.norm.num_features])


class SoftGateParams(NamedTuple):
    """Of :class:`SoftGate`."""

    #: Static: it has no arrays.
    graph: nnx.GraphDef[Gate]
    weights: Any
    normaliser: Normaliser


@dataclass(frozen=True)
class SoftGate:
    """Always UPDATE_1, of which the gate keeps a share: the probability that it gives to UPDATE.

    The update is made and paid in full, whatever of it is kept.

    Args:
        gate: a trained gate.
        normaliser: statistics of the features that it was trained with.
        costs: of the four actions.
    """

    gate: Gate
    normaliser: Normaliser
    costs: tuple[float, ...] = NOMINAL_COSTS
    budget: None = None
    params: Any = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", SoftGateParams(*nnx.split(self.gate), self.normaliser))

    def init(self) -> Any:
        """Nothing to remember: the past is in the features."""
        return ()

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`; the score is the share that is kept."""
        gate = nnx.merge(params.graph, params.weights)
        logits = gate_logits(gate, params.normaliser, observation.features)
        share = jax.nn.softmax(logits)[1]
        return without_rank(state, int(Action.UPDATE_1), share)._replace(scale=share)
