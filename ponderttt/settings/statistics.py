"""The bootstrap and its intervals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StatisticsConfig:
    """Bootstrap over streams and the confidence level of every interval."""

    bootstrap_samples: int = 10_000
    confidence: float = 0.95
    seed: int = 0
    #: Whether to compute the table from the runs that exist, with n per row, when some are missing.
    allow_missing: bool = False
