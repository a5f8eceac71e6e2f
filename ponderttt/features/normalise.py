"""Signals on one scale: each feature minus its mean over its standard deviation, both of training streams only."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ponderttt.errors import PonderTTTError
from ponderttt.features.table import FEATURES, NAMES

#: Normalised features are clipped to ± this, so that an odd chunk cannot drown the others.
CLIP = 5.0
#: A feature that spreads less than this share of its mean is constant as far as float32 can tell.
_CONSTANT = 1e-6


class Normaliser(NamedTuple):
    """The statistics of the features over training streams, a pytree."""

    mean: Float[np.ndarray, " F"]
    #: Standard deviation, 1 for a constant feature: nothing is blown up that hardly moved in training.
    scale: Float[np.ndarray, " F"]


def fit(features: Float[np.ndarray, "M F"]) -> Normaliser:
    """The statistics of M chunks of training streams.

    Raises:
        PonderTTTError: there is no chunk, or a feature is not finite; the message names it.
    """
    rows = np.asarray(features, np.float64)
    if not len(rows):
        raise PonderTTTError("no chunk to normalise features with; give at least one training stream")
    finite = np.isfinite(rows).all(axis=0)
    if not finite.all():
        place = int(np.flatnonzero(~finite)[0])
        name = NAMES[place] if rows.shape[1] == len(NAMES) else str(place)
        raise PonderTTTError(
            f"feature {name} is not finite in some training chunk; run the frozen pass again"
        )
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    constant = spread <= _CONSTANT * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)
    return Normaliser(mean, np.where(constant, 1.0, spread))


def blind(normaliser: Normaliser, groups: Collection[str]) -> Normaliser:
    """Statistics under which every feature of some groups is 0, whatever it is."""
    hidden = np.array([feature.group in groups for feature in FEATURES])
    return Normaliser(normaliser.mean, np.where(hidden, np.inf, normaliser.scale))


def apply(normaliser: Normaliser, features: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """The z-scores of raw features, clipped to ±:data:`CLIP`; traceable."""
    mean, scale = jnp.asarray(normaliser.mean), jnp.asarray(normaliser.scale)
    return jnp.clip((features - mean) / scale, -CLIP, CLIP)
