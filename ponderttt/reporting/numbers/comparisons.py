"""Differences between two arms, paired by seed, stream and chunk; and the share of an oracle's gain that an arm recovers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ponderttt.errors import PonderTTTError
from ponderttt.reporting.numbers.arms import Arm, Chunks
from ponderttt.reporting.numbers.columns import Estimate
from ponderttt.reporting.numbers.sampling import StreamSampling
from ponderttt.reporting.numbers.statistics import (
    Interval,
    RatioTerms,
    interquartile_mean,
    probability_of_improvement,
    t_interval,
    within_stream_slope,
)

#: Two arms cost the same if their mean nominal costs differ by at most this share.
COST_TOLERANCE = 0.05


@dataclass(frozen=True)
class Difference:
    """Loss of an arm minus loss of its reference, nats per token: below zero, the arm is better."""

    #: Interval and p value over streams, seeds averaged first.
    delta: Estimate
    by_seed: dict[int, float]
    seed_interval: Interval | None
    #: Interquartile mean of the streams' own differences; None below 4 streams.
    iqm: float | None
    #: P(loss of the arm < loss of the reference), over streams and runs.
    p_improvement: float
    #: Growth of the gain per chunk of the stream, nats per token; None if no stream has two chunks.
    slope: Estimate | None


class PairedLosses(NamedTuple):
    """The losses of two arms on the same chunks, for the seeds that both have."""

    seeds: tuple[int, ...]
    ours: Float[np.ndarray, "N C"]
    theirs: Float[np.ndarray, "N C"]


def pair(arm: Arm, reference: Arm) -> PairedLosses | None:
    """Match seeds (a deterministic arm matches every seed); None if the arms have no seed in common.

    Raises:
        PonderTTTError: the arms scored different chunks or follow different protocols.
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
    return PairedLosses(seeds, arm.losses_of(seeds), reference.losses_of(seeds)) if seeds else None


def difference(arm: Arm, reference: Arm, sampling: StreamSampling) -> Difference | None:
    """Return every statistic of ``arm`` minus ``reference``; None if they have no seed in common."""
    paired = pair(arm, reference)
    if paired is None:
        return None
    chunks, tokens = arm.chunks, arm.tokens
    per_chunk = paired.ours - paired.theirs
    per_run = chunks.per_stream(per_chunk * chunks.n_tokens)
    mean = per_run.mean(axis=0)
    by_seed = dict(zip(paired.seeds, (per_run.sum(axis=1) / tokens.sum()).tolist(), strict=True))
    slope = within_stream_slope(
        -per_chunk.mean(axis=0), chunks.chunk_index, chunks.n_tokens, chunks.stream, len(tokens)
    )
    both_deterministic = arm.deterministic and reference.deterministic
    return Difference(
        delta=sampling.tested(RatioTerms(mean, tokens)),
        by_seed=by_seed,
        seed_interval=None if both_deterministic else t_interval(list(by_seed.values()), sampling.confidence),
        iqm=interquartile_mean(mean / tokens) if len(tokens) >= 4 else None,
        p_improvement=probability_of_improvement(arm.nats / arm.tokens, reference.nats / reference.tokens),
        slope=sampling.tested(slope) if slope.denominator.sum() > 0 else None,
    )


def find(arms: Sequence[Arm], like: Arm, fast_weights: str, method: str) -> Arm | None:
    """Return the arm of the model, corpus and protocol of ``like`` with these fast weights and method."""
    wanted = like.key._replace(fast_weights=fast_weights, method=method)
    return next((arm for arm in arms if arm.key == wanted), None)


class Recovery(NamedTuple):
    """Share of the oracle's gain over a baseline that an arm has, as gains in nats of each stream, or why there is none."""

    share: RatioTerms | None
    note: str | None


def recovery(arm: Arm, baseline: Arm | None, oracle: Arm | None, *, matched: bool) -> Recovery:
    """Return (baseline − arm) / (baseline − oracle) for arms of one protocol whose costs allow the comparison.

    An arm that spends more than the oracle may gain more without better decisions, so it has no share.

    Args:
        arm: the arm, neither the baseline nor the oracle.
        baseline: the trained adapter with 0 updates, or random decisions.
        oracle: the best sequences of this budget, enumerated or searched exhaustively.
        matched: whether the baseline must cost what the arm costs, as random decisions must.
    """
    if oracle is None:
        return Recovery(None, "no recovery: no best sequences are known; add fast_weights to sequences")
    if baseline is None:
        return Recovery(None, "no recovery: the grid has no such baseline")
    ours, top = arm.mean_cost, oracle.mean_cost
    if ours > top * (1 + COST_TOLERANCE):
        return Recovery(None, f"no recovery: costs {ours:.2f} per chunk, {oracle.key.method} only {top:.2f}")
    if matched and abs(baseline.mean_cost - ours) > ours * COST_TOLERANCE:
        return Recovery(
            None, f"no recovery: costs {ours:.2f} per chunk, {baseline.key.method} {baseline.mean_cost:.2f}"
        )
    best, base = pair(oracle, baseline), pair(arm, baseline)
    if best is None or base is None:
        return Recovery(None, f"no recovery: no seed in common with {oracle.key.method}")
    share = RatioTerms(_gains(arm.chunks, base), _gains(oracle.chunks, best))
    if share.denominator.sum() <= 0:
        return Recovery(None, f"no recovery: {oracle.key.method} gains nothing over {baseline.key.method}")
    if share.value <= 1:
        return Recovery(share, None)
    return Recovery(share, f"recovery above 100 %: {oracle.key.method} is no upper bound")


def _gains(chunks: Chunks, paired: PairedLosses) -> Float[np.ndarray, " S"]:
    return chunks.per_stream((paired.theirs - paired.ours).mean(axis=0) * chunks.n_tokens)
