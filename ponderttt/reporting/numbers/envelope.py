"""The lower envelope of (cost, loss) points and the area under it, as weights of the points."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Envelope(NamedTuple):
    """Lowest loss that a policy reaches at each of P costs: linear between its costs, constant after the last."""

    cost: Float[np.ndarray, " P"]
    loss: Float[np.ndarray, " P"]
    #: ``loss = share @ losses of the Q points``: how much of each point is in the envelope.
    share: Float[np.ndarray, "P Q"]

    def weights_between(self, low: float, high: float) -> Float[np.ndarray, " Q"]:
        """Return the weights of the points whose sum is the mean loss from cost ``low`` to ``high`` (trapezoids).

        The weights are the derivatives of that mean: a small change of the losses leaves them as they are.

        Raises:
            ValueError: the range is empty, or begins below the cheapest point.
        """
        if not self.cost[0] <= low < high:
            raise ValueError(f"no area from {low} to {high}: the cheapest point costs {self.cost[0]}")
        at = np.unique([low, *self.cost[(self.cost > low) & (self.cost < high)], high])
        # Weight of each of the P places in the loss at each cost.
        place = np.stack([np.interp(at, self.cost, unit) for unit in np.eye(len(self.cost))], axis=-1)
        width = np.diff(at)
        return (width @ (place[1:] + place[:-1])) / 2 / (high - low) @ self.share


def lower_envelope(cost: Float[np.ndarray, " Q"], loss: Float[np.ndarray, " Q"]) -> Envelope:
    """Return the lower convex envelope of (cost, loss) points, never rising with cost.

    A policy can treat some streams as at one point and the others as at another, so it reaches every place on the line
    between the two.  With a larger budget it can do what it does with a smaller one, so its loss need not rise.
    """
    costs = np.unique(cost)
    # The best point that costs no more.
    best = [min(np.flatnonzero(cost <= limit), key=loss.__getitem__) for limit in costs]
    share = np.eye(len(cost))[best]
    reached = share.copy()
    for i in range(len(costs)):
        for k in range(i + 2, len(costs)):
            for j in range(i + 1, k):
                part = (costs[j] - costs[i]) / (costs[k] - costs[i])
                between = (1 - part) * share[i] + part * share[k]
                if between @ loss < reached[j] @ loss:
                    reached[j] = between
    return Envelope(costs, reached @ loss, reached)
