"""``results/signals.csv``: which features of a chunk predict what an update on it gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.reporting.numbers.arms import Arm
from ponderttt.reporting.numbers.rows import SignalRow
from ponderttt.reporting.numbers.statistics import (
    Interval,
    StreamResamples,
    percentile_interval,
    ranks_within_streams,
    resampled_correlation,
    standard_ranks,
)

#: The records that hold the look-ahead which is read here.
METHOD = "greedy_oracle"
UPDATES = (Action.UPDATE_1, Action.UPDATE_2, Action.UPDATE_4)
#: Ranks are taken anew in every resample, of which so many suffice for an interval.
MOST_RESAMPLES = 2000


def signal_rows(
    arms: Sequence[Arm], resamples: Mapping[tuple[str, int], StreamResamples], confidence: float
) -> list[SignalRow]:
    """A row for each feature, action, model, corpus and fast weights whose greedy oracle wrote down its look-ahead.

    Args:
        arms: of the whole table.
        resamples: (corpus, number of streams) → the resamples that the table uses for it.
        confidence: of the intervals.
    """
    return [
        row
        for arm in arms
        if arm.key.method == METHOD and arm.look_aheads
        for row in _rows_of_arm(arm, resamples[arm.key.corpus, len(arm.chunks.streams)], confidence)
    ]


def _rows_of_arm(arm: Arm, resamples: StreamResamples, confidence: float) -> list[SignalRow]:
    from ponderttt.features.table import FEATURES

    # First the streams as they are, then each resample.
    counts = np.concatenate([np.ones((1, len(arm.chunks.streams))), resamples.counts[:MOST_RESAMPLES]])
    overall, within = (
        np.stack(values)
        for values in zip(*(_correlations(arm, i, counts) for i in range(len(arm.look_aheads))), strict=True)
    )
    several = len(arm.chunks.streams) > 1
    known = np.isfinite(arm.look_aheads[0].gain[:, 0])
    rows = []
    for a, action in enumerate(UPDATES):
        for f, feature in enumerate(FEATURES):
            cells: dict[str, float | None] = {}
            for name, rho in (("rho", overall[:, a, f]), ("rho_within", within[:, a, f])):
                value, interval = _summary(rho, confidence, several=several)
                cells |= {
                    name: value,
                    f"{name}_ci_low": interval.low if interval else None,
                    f"{name}_ci_high": interval.high if interval else None,
                }
            rows.append(
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
                    **cells,
                )
            )
    return rows


def _summary(
    rho: Float[np.ndarray, "N B"], confidence: float, *, several: bool
) -> tuple[float | None, Interval | None]:
    """Mean over seeds, and its interval over resamples of several streams."""
    mean = rho.mean(axis=0)
    if not np.isfinite(mean[0]):
        return None, None
    return float(mean[0]), percentile_interval(mean[1:], confidence) if several else None


def _correlations(
    arm: Arm, seed: int, counts: Float[np.ndarray, "B S"]
) -> tuple[Float[np.ndarray, "A F B"], Float[np.ndarray, "A F B"]]:
    """Rank correlations of one seed in B samples of streams, over all chunks and within streams."""
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


def strongest(rows: Sequence[SignalRow], action: str = "UPDATE_1") -> list[SignalRow]:
    """Rows of one model, corpus and fast weights for this action, those of the largest correlation first."""
    known = [row for row in rows if row.action == action and row.rho is not None]
    return sorted(known, key=lambda row: -abs(row.rho or 0.0))
