"""The lower envelope of (cost, loss) points and the area under it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Envelope(NamedTuple):
    """Lowest loss that a policy reaches at each cost: linear between its costs, constant after the last."""

    cost: Float[np.ndarray, " P"]
    loss: Float[np.ndarray, "... P"]

    def mean_between(self, low: float, high: float) -> Float[np.ndarray, ...]:
        """Return the mean loss over the costs from ``low`` to ``high`` (trapezoids), nats per token.

        Raises:
            ValueError: the range is empty, or begins below the cheapest point.
        """
        if not self.cost[0] <= low < high:
            raise ValueError(f"no area from {low} to {high}: the cheapest point costs {self.cost[0]}")
        at = np.unique([low, *self.cost[(self.cost > low) & (self.cost < high)], high])
        # Weight of each point in the loss at each cost.
        share = np.stack([np.interp(at, self.cost, unit) for unit in np.eye(len(self.cost))], axis=-1)
        width = np.diff(at)
        weight = (width @ (share[1:] + share[:-1])) / 2 / (high - low)
        return self.loss @ weight


def lower_envelope(cost: Float[np.ndarray, " Q"], loss: Float[np.ndarray, "... Q"]) -> Envelope:
    """Return the lower convex envelope of (cost, loss) points, never rising with cost, for one or many sets of losses.

    A policy can treat some streams as at one point and the others as at another, so it reaches every place on the line
    between the two.  With a larger budget it can do what it does with a smaller one, so its loss need not rise.
    """
    costs, place = np.unique(cost, return_inverse=True)
    least = np.stack([loss[..., place == p].min(axis=-1) for p in range(len(costs))], axis=-1)
    least = np.minimum.accumulate(least, axis=-1)
    reached = least.copy()
    for i in range(len(costs)):
        for k in range(i + 2, len(costs)):
            for j in range(i + 1, k):
                share = (costs[j] - costs[i]) / (costs[k] - costs[i])
                between = (1 - share) * least[..., i] + share * least[..., k]
                reached[..., j] = np.minimum(reached[..., j], between)
    return Envelope(costs, reached)
