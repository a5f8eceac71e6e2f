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
