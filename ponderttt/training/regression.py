"""The cheap rival of a learned gate: ridge regression of what an update gains on what is seen before it.

The gain of UPDATE_1 on chunk t, when no update follows, is the sum of what it saves on all later chunks.  It is
measured at chunks of training streams that random sequences of the budget lead to, and regressed on the normalised
features (Hoerl & Kennard 1970); the penalty is chosen by leaving out streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Fitted(NamedTuple):
    """A ridge regression."""

    coefficients: Float[np.ndarray, " n"]
    intercept: float
    penalty: float
    #: Of gains in streams that were left out; at most 1, and 0 for the mean gain.
    explained: float


def fit_ridge(
    inputs: Float[np.ndarray, "M n"],
    gains: Float[np.ndarray, " M"],
    streams: Int[np.ndarray, " M"],
    penalties: Sequence[float],
) -> Fitted:
    """Ridge regression whose penalty leaves the smallest error on streams left out, one after the other."""
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
    """How much less is explained of a stream left out when the features of one group are shuffled among its chunks.

    Permutation importance (Breiman 2001) of whole groups, since features of a group stand in for each other.  Shares of
    the variance of the gains; about 0 for a group that tells nothing, below 0 for one that misleads.

    Args:
        inputs: normalised features.
        gains: what they should tell.
        streams: of each chunk.
        groups: of each feature.
        penalty: of the regression.
        seed: of the shuffles.
        repeats: shuffles for each stream and group.
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
