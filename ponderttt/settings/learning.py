"""Settings of learned policies: the section ``learned``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from ponderttt.features.table import FEATURES
from ponderttt.settings.gate import GateConfig
from ponderttt.settings.mapping import KeyProblem, settings
from ponderttt.settings.ppo import PPOConfig
from ponderttt.settings.values import Count, Distinct, NotNegative, Positive, VariantName, one_of

GROUPS = list(dict.fromkeys(feature.group for feature in FEATURES))
FeatureGroup = Annotated[str, one_of(GROUPS), WithJsonSchema({"enum": GROUPS})]


@settings
class RegressionConfig:
    """Ridge regression of the gain of an update."""

    penalties: tuple[Positive, ...] = Field(
        default=(1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
        min_length=1,
        description="Penalties to choose from, by leaving out streams.",
    )


@settings
class Learning:
    """Training of one policy on training streams."""

    features: Literal[32, 64] = Field(
        default=32, description="Number of features that a policy sees: the first 32 of the table, or all 64."
    )
    leave_out: Distinct[FeatureGroup] = Field(
        default=(), description="Groups of the table of features that a policy does not see."
    )
    sequences: Count = Field(
        default=4,
        description="Random sequences through each training stream; they set the scale of features and the percentiles of "
        "scores.",
    )
    logits_gb: NotNegative = Field(
        default=3.0,
        description="Memory for frozen logits of training streams, in GB; the logits of other streams are computed at every "
        "visit.",
    )
    taken_from: str | None = Field(
        default=None,
        description="Backbone of the grid whose trained network is used unchanged; only the scale of features is learned on "
        "this one. For variants only.",
    )
    regression: RegressionConfig = RegressionConfig()
    gate: GateConfig = GateConfig()
    ppo: PPOConfig = PPOConfig()


@settings
class LearnedConfig(Learning):
    """Training of the study's policies, and of its variants."""

    variants: dict[VariantName, Learning] = Field(
        default_factory=dict,
        description="Named settings other than these, used as {method}-{variant} in grid.methods. A variant starts from the "
        "defaults, not from the study's settings.",
    )

    def of(self, variant: str | None) -> Learning:
        """Return the settings of a variant, or the study's own."""
        return self if variant is None else self.variants[variant]

    def __post_init__(self) -> None:
        if self.taken_from is not None:
            raise KeyProblem(
                "taken_from",
                f"is {self.taken_from}: set it in one of learned.variants, so that something is trained",
            )
