"""Normalised features: z-scores, with the mean and the standard deviation over training streams."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ponderttt.errors import PonderTTTError
from ponderttt.features.table import FEATURES, NAMES

#: Normalised features are clipped to ± this, so that an outlier cannot dominate.
CLIP = 5.0
#: A feature whose standard deviation is below this fraction of its mean is constant in float32.
_CONSTANT = 1e-6


class Normaliser(NamedTuple):
    """Statistics of the features over training streams; a pytree.

    Attributes:
        mean: mean of each feature.
        scale: standard deviation of each feature; 1 for a constant one, so that small changes are not magnified.
    """

    mean: Float[np.ndarray, " F"]
    scale: Float[np.ndarray, " F"]


def fit(features: Float[np.ndarray, "M F"]) -> Normaliser:
    """Return the statistics of M chunks of training streams.

    Raises:
        PonderTTTError: there is no chunk, or a feature is not finite.
    """
    rows = np.asarray(features, np.float64)
    if not len(rows):
        raise PonderTTTError(
            "there are no chunks to normalise features with; give at least one training stream"
        )
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
    """Return statistics that make every feature of some groups 0, whatever its value."""
    hidden = np.array([feature.group in groups for feature in FEATURES])
    return Normaliser(normaliser.mean, np.where(hidden, np.inf, normaliser.scale))


def apply(normaliser: Normaliser, features: Float[Array | np.ndarray, "*B F"]) -> Float[Array, "*B F"]:
    """Return the z-scores of raw features, clipped to ±:data:`CLIP`; traceable."""
    mean, scale = jnp.asarray(normaliser.mean), jnp.asarray(normaliser.scale)
    return jnp.clip((features - mean) / scale, -CLIP, CLIP)
