"""Settings of intervals: the section ``statistics``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ponderttt.settings.mapping import settings
from ponderttt.settings.values import Count, CountOrZero


@settings
class StatisticsConfig:
    """Confidence intervals of the table: a bootstrap over streams."""

    bootstrap_samples: Count = Field(default=10_000, description="Number of bootstrap samples.")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.95, description="Confidence level of every interval."
    )
    seed: CountOrZero = Field(default=0, description="Seed of the bootstrap.")
    allow_missing: bool = Field(
        default=False,
        description="If runs are missing, compute the table from those that exist, with n per row.",
    )
