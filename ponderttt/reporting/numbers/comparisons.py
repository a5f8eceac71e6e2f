"""Differences between two arms, paired by seed, stream and chunk; and how much of an oracle's gain an arm recovers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ponderttt.errors import PonderTTTError
from ponderttt.reporting.numbers.arms import Arm, Chunks
from ponderttt.reporting.numbers.statistics import (
    Interval,
    StreamResamples,
    interquartile_mean,
    probability_of_improvement,
    t_interval,
    within_stream_slope,
)

#: An arm is as dear as another if its mean nominal cost is within this share of it.
COST_TOLERANCE = 0.05


@dataclass(frozen=True)
class Difference:
    """Loss of an arm minus loss of its reference, nats per token: below zero, the arm is better."""

    delta: float
    #: Bootstrap over streams, seeds averaged first.
    interval: Interval | None
    by_seed: dict[int, float]
    seed_interval: Interval | None
    #: Interquartile mean of the streams' own differences; ``None`` below 4 streams.
    iqm: float | None
    #: P(loss of the arm < loss of the reference), over streams and runs.
    p_improvement: float
    #: Growth of the gain per chunk of the stream, nats per token; ``None`` if no stream has two chunks.
    slope: float | None
    slope_interval: Interval | None


class PairedLosses(NamedTuple):
    """The losses of two arms on the same chunks, for the seeds that both have."""

    seeds: tuple[int, ...]
    ours: Float[np.ndarray, "N C"]
    theirs: Float[np.ndarray, "N C"]


def pair(arm: Arm, reference: Arm) -> PairedLosses | None:
    """Match seeds (a deterministic arm matches every seed); ``None`` if no seed is common.

    Raises:
        PonderTTTError: the arms have scored different chunks or follow different protocols.
    """
    if arm.key.protocol != reference.key.protocol:
        raise PonderTTTError(f"{arm.key} is never compared with {reference.key}: their protocols differ")
    if not arm.chunks.same_as(reference.chunks):
        raise PonderTTTError(
            f"{arm.key} and {reference.key} scored different streams or chunks, so they cannot be paired; "
            "rebuild both from one corpus"
        )
    if arm.deterministic:
        seeds = reference.seeds
    elif reference.deterministic:
        seeds = arm.seeds
    else:
        seeds = tuple(seed for seed in arm.seeds if seed in reference.seeds)
    return PairedLosses(seeds, arm.of_seeds(seeds), reference.of_seeds(seeds)) if seeds else None


def difference(arm: Arm, reference: Arm, resamples: StreamResamples, confidence: float) -> Difference | None:
    """Every statistic of ``arm`` minus ``reference``; ``None`` if they have no seed in common."""
    paired = pair(arm, reference)
    if paired is None:
        return None
    chunks, n_streams = arm.chunks, len(arm.chunks.streams)
    tokens = chunks.per_stream(chunks.n_tokens.astype(np.float64))
    per_chunk = paired.ours - paired.theirs
    per_run = chunks.per_stream(per_chunk * chunks.n_tokens)
    mean = per_run.mean(axis=0)
    by_seed = dict(zip(paired.seeds, (per_run.sum(axis=1) / tokens.sum()).tolist(), strict=True))
    slope = within_stream_slope(
        -per_chunk.mean(axis=0), chunks.chunk_index, chunks.n_tokens, chunks.stream, n_streams
    )
    has_slope = slope.denominator.sum() > 0
    both_deterministic = arm.deterministic and reference.deterministic
    return Difference(
        delta=float(mean.sum() / tokens.sum()),
        interval=resamples.interval(mean, tokens, confidence),
        by_seed=by_seed,
        seed_interval=None if both_deterministic else t_interval(list(by_seed.values()), confidence),
        iqm=interquartile_mean(mean / tokens) if n_streams >= 4 else None,
        p_improvement=probability_of_improvement(_stream_losses(arm), _stream_losses(reference)),
        slope=float(slope.numerator.sum() / slope.denominator.sum()) if has_slope else None,
        slope_interval=resamples.interval(*slope, confidence) if has_slope else None,
    )


def mean_cost(arm: Arm) -> float:
    """Mean nominal cost per chunk."""
    return float(arm.measures["cost_nominal"].mean())


def find(arms: Sequence[Arm], like: Arm, fast_weights: str, method: str) -> Arm | None:
    """The arm of the same model, corpus and protocol as ``like`` with these fast weights and method."""
    wanted = like.key._replace(fast_weights=fast_weights, method=method)
    return next((arm for arm in arms if arm.key == wanted), None)


class Recovery(NamedTuple):
    """Share of the oracle's gain over the baseline that an arm has; or why there is no such number."""

    share: float | None
    note: str | None


def recovery(arm: Arm, baseline: Arm | None, oracle: Arm | None, *, matched: bool) -> Recovery:
    """(baseline − arm) / (baseline − oracle), of arms of one protocol whose costs allow the comparison.

    An arm that spends more than the oracle may well gain more, which says nothing about its decisions: such a
    share is not given.

    Args:
        arm: the arm, neither baseline nor oracle itself.
        baseline: the trained adapter with 0 updates, or random decisions.
        oracle: the best of :data:`~ponderttt.reporting.numbers.methods.ORACLES` that the grid has at this budget.
        matched: whether the baseline must cost what the arm costs, as random decisions must.
    """
    if oracle is None:
        return Recovery(None, "no recovery: the grid has no oracle arm")
    if baseline is None:
        return Recovery(None, "no recovery: the grid has no such baseline")
    ours, top = mean_cost(arm), mean_cost(oracle)
    if ours > top * (1 + COST_TOLERANCE):
        return Recovery(None, f"no recovery: costs {ours:.2f} per chunk, {oracle.key.method} only {top:.2f}")
    if matched and abs(mean_cost(baseline) - ours) > ours * COST_TOLERANCE:
        return Recovery(
            None, f"no recovery: costs {ours:.2f} per chunk, {baseline.key.method} {mean_cost(baseline):.2f}"
        )
    best, base = pair(oracle, baseline), pair(arm, baseline)
    if best is None or base is None:
        return Recovery(None, f"no recovery: no seed in common with {oracle.key.method}")
    possible, reached = _gain(oracle.chunks, best), _gain(arm.chunks, base)
    if possible <= 0:
        return Recovery(None, f"no recovery: {oracle.key.method} gains nothing over {baseline.key.method}")
    share = reached / possible
    if share <= 1:
        return Recovery(share, None)
    return Recovery(share, f"recovery above 100 %: {oracle.key.method} is no upper bound")


def _gain(chunks: Chunks, paired: PairedLosses) -> float:
    return float(((paired.theirs - paired.ours).mean(axis=0) * chunks.n_tokens).sum())


def _stream_losses(arm: Arm) -> Float[np.ndarray, "N S"]:
    tokens = arm.chunks.per_stream(arm.chunks.n_tokens.astype(np.float64))
    return arm.chunks.per_stream(arm.measures["loss"] * arm.chunks.n_tokens) / tokens
