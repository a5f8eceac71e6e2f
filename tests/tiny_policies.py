"""Learned policies with random networks, awake enough to decide differently from chunk to chunk."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ponderttt.features.normalise import Normaliser
from ponderttt.features.table import BASE, FEATURES
from ponderttt.names import LEARNED_METHODS, MethodName
from ponderttt.policies.learned import Linear
from ponderttt.policies.networks import ActorCritic, Gate
from ponderttt.policies.trained import Trained

#: Of made-up training streams.
NORMALISER = Normaliser(np.full(len(FEATURES), 0.1), np.full(len(FEATURES), 0.8))


def network_of(method: str, seed: int = 0) -> Linear | Gate | ActorCritic:
    """A random network for a learned method."""
    if method == "regression":
        weights = jax.random.normal(jax.random.key(seed), (BASE,))
        return Linear(weights, jnp.asarray(0.3))
    if method != "ppo":
        return Gate(BASE, rngs=nnx.Rngs(seed))
    network = ActorCritic(BASE, rngs=nnx.Rngs(seed))
    # Its policy starts near uniform; this one has preferences.
    network.policy.kernel[...] = 100 * network.policy.kernel[...]
    return network


def learned_policies() -> Mapping[MethodName, Trained]:
    """One of each, as if trained."""
    scores = tuple(np.linspace(-2.0, 2.0, 21).tolist())
    return {
        name: Trained(name, NORMALISER, network_of(name.base), scores, (0.4, 0.3, 0.2, 0.1))
        for name in map(MethodName, LEARNED_METHODS)
    }
