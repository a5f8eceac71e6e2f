"""Settings of intervals, tests and claims: the section ``statistics``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ponderttt.settings.confirmatory import Comparison, ComparisonText
from ponderttt.settings.mapping import KeyProblem, settings
from ponderttt.settings.values import Count, CountOrZero, Distinct


@settings
class StatisticsConfig:
    """Intervals and p values of the table, and the comparisons that the study is made for."""

    bootstrap_samples: Count = Field(
        default=10_000, description="Number of bootstrap samples of the intervals over streams."
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.95,
        description="Confidence level of every interval; a difference is clear at p of at most 1 minus this.",
    )
    sign_flips: Count = Field(
        default=20_000,
        description="Number of random flips of signs for a p value over more than 16 streams; up to 16, all are counted.",
    )
    seed: CountOrZero = Field(default=0, description="Seed of the bootstrap and of random flips.")
    confirmatory: Distinct[ComparisonText] = Field(
        default=(),
        description="Comparisons that the study is made for, as in 'memory update_1 vs skip': an arm, and a method of the "
        "same fast weights, or any other arm. Write them down before held-out streams are opened. Their p values are corrected "
        "for the number of comparisons, backbones and held-out corpora; all others are exploratory.",
    )
    allow_missing: bool = Field(
        default=False,
        description="If runs are missing, compute the table from those that exist, with n per row.",
    )

    def __post_init__(self) -> None:
        needed = round(2 / (1 - self.confidence)) - 1
        if self.bootstrap_samples < needed:
            raise KeyProblem(
                "bootstrap_samples",
                f"must be at least {needed} for a confidence of {self.confidence:g}, got {self.bootstrap_samples}",
            )
        if len(set(self.comparisons)) < len(self.confirmatory):
            raise KeyProblem("confirmatory", f"names a comparison twice: {list(self.confirmatory)}")

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The confirmatory comparisons, parsed."""
        return tuple(map(Comparison.parse, self.confirmatory))
