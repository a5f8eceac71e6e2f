"""Ridge regression of an update's gain on the features: the cheap alternative to a learned gate.

The gain of UPDATE_1 on chunk t, if no update follows, is the sum of what it saves on all later chunks.  It is measured at
chunks on random paths of the budget and regressed on the normalised features (Hoerl & Kennard 1970).  The penalty is
chosen by leaving out streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Fitted(NamedTuple):
    """A fitted ridge regression."""

    coefficients: Float[np.ndarray, " n"]
    intercept: float
    penalty: float
    #: Explained variance of gains in left-out streams; at most 1, and 0 for the mean gain.
    explained: float


def fit_ridge(
    inputs: Float[np.ndarray, "M n"],
    gains: Float[np.ndarray, " M"],
    streams: Int[np.ndarray, " M"],
    penalties: Sequence[float],
) -> Fitted:
    """Fit a ridge regression with the penalty of smallest error in leave-one-stream-out validation."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    spread = float(np.mean(np.square(gains - gains.mean())))
    errors = []
    for penalty in penalties:
        predicted = cross_val_predict(
            Ridge(alpha=penalty), inputs, gains, groups=streams, cv=LeaveOneGroupOut()
        )
        errors.append(float(np.mean(np.square(gains - predicted))))
    best = int(np.argmin(errors))
    fitted = Ridge(alpha=penalties[best]).fit(inputs, gains)
    return Fitted(
        np.asarray(fitted.coef_),
        float(fitted.intercept_),
        penalties[best],
        1 - errors[best] / max(spread, 1e-12),
    )


def group_importance(
    inputs: Float[np.ndarray, "M n"],
    gains: Float[np.ndarray, " M"],
    streams: Int[np.ndarray, " M"],
    groups: Sequence[str],
    penalty: float,
    seed: int,
    repeats: int = 20,
) -> dict[str, float]:
    """Return the drop in explained variance on left-out streams when the features of one group are shuffled.

    Permutation importance (Breiman 2001) of whole groups, since features of a group can replace each other.  Fractions of
    the variance of the gains; about 0 for a group without information, below 0 for one that misleads.

    Args:
        inputs: normalised features.
        gains: gains to predict.
        streams: stream of each chunk.
        groups: group of each feature.
        penalty: penalty of the regression.
        seed: seed of the shuffles.
        repeats: shuffles per stream and group.
    """
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(seed)
    lost = dict.fromkeys(groups, 0.0)
    for stream in np.unique(streams):
        out = streams == stream
        line = Ridge(alpha=penalty).fit(inputs[~out], gains[~out])
        plain = float(np.sum(np.square(gains[out] - line.predict(inputs[out]))))
        for group in lost:
            columns = np.array([other == group for other in groups])
            for _ in range(repeats):
                shuffled = inputs[out].copy()
                shuffled[:, columns] = rng.permutation(shuffled[:, columns])
                lost[group] += float(np.sum(np.square(gains[out] - line.predict(shuffled)))) - plain
    total = repeats * float(np.sum(np.square(gains - gains.mean())))
    return {group: error / max(total, 1e-12) for group, error in lost.items()}
