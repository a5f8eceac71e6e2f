"""``signals.csv``: which features of a chunk predict the gain of an update after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.reporting.numbers.arms import Arm
from ponderttt.reporting.numbers.columns import Estimate
from ponderttt.reporting.numbers.ranks import (
    correlation_interval,
    ranks_within_streams,
    resampled_correlation,
    standard_ranks,
)
from ponderttt.reporting.numbers.rows import SignalRow

#: The method whose records hold a look-ahead.
METHOD = "greedy_oracle"
UPDATES = (Action.UPDATE_1, Action.UPDATE_2, Action.UPDATE_4)


def signal_rows(arms: Sequence[Arm], confidence: float) -> list[SignalRow]:
    """Return a row for each feature and action of every arm of the greedy oracle whose records hold its look-ahead.

    Args:
        arms: all arms of the table.
        confidence: confidence level of the intervals.
    """
    return [
        row
        for arm in arms
        if arm.key.method == METHOD and arm.look_aheads
        for row in _rows_of_arm(arm, confidence)
    ]


def _rows_of_arm(arm: Arm, confidence: float) -> list[SignalRow]:
    from ponderttt.features.table import FEATURES

    n_streams = len(arm.chunks.streams)
    # First the streams as they are, then without each of them.
    counts = np.concatenate([np.ones((1, n_streams)), 1 - np.eye(n_streams)])
    overall, within = (
        np.mean(values, axis=0)
        for values in zip(*(_correlations(arm, i, counts) for i in range(len(arm.look_aheads))), strict=True)
    )
    known = np.isfinite(arm.look_aheads[0].gain[:, 0])

    def estimate(rho: Float[np.ndarray, " B"]) -> Estimate | None:
        if not np.isfinite(rho[0]):
            return None
        return Estimate.of(float(rho[0]), correlation_interval(float(rho[0]), rho[1:], confidence))

    return [
        SignalRow(
            model=arm.key.model,
            fast_weights=arm.key.fast_weights,
            method=arm.key.method,
            corpus=arm.key.corpus,
            feature=feature.name,
            group=feature.group,
            action=action.name,
            n_seeds=len(arm.look_aheads),
            n_streams=len(arm.chunks.streams),
            n_chunks=int(known.sum()),
            rho=estimate(overall[a, f]),
            rho_within=estimate(within[a, f]),
        )
        for a, action in enumerate(UPDATES)
        for f, feature in enumerate(FEATURES)
    ]


def _correlations(
    arm: Arm, seed: int, counts: Float[np.ndarray, "B S"]
) -> tuple[Float[np.ndarray, "A F B"], Float[np.ndarray, "A F B"]]:
    """Return the rank correlations of one seed in B samples of streams, over all chunks and within streams."""
    seen = arm.look_aheads[seed]
    known = np.isfinite(seen.gain).all(axis=1) & np.isfinite(seen.features).all(axis=1)
    features, gains, stream = seen.features[known].T, seen.gain[known].T, arm.chunks.stream[known]
    repeats = counts[:, stream]

    def within_streams(values: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
        return ranks_within_streams(values, stream, counts.shape[1])

    gain_ranks = [standard_ranks(gain, repeats) for gain in gains]
    gain_ranks_within = [within_streams(gain) for gain in gains]
    overall, within = np.full((2, len(gains), len(features), len(counts)), np.nan)
    for f, feature in enumerate(features):
        ranks, ranks_within = standard_ranks(feature, repeats), within_streams(feature)
        for a in range(len(gains)):
            overall[a, f] = np.einsum("bc,bc->b", ranks, gain_ranks[a])
            within[a, f] = resampled_correlation(ranks_within, gain_ranks_within[a], stream, counts)
    return overall, within


def strongest(signals: pd.DataFrame, action: str = "UPDATE_1") -> pd.DataFrame:
    """Return the rows of an action whose correlation is known, the largest first."""
    known = signals[(signals.action == action) & signals.rho.notna()]
    return known.sort_values("rho", key=lambda rho: -rho.abs(), kind="stable")
