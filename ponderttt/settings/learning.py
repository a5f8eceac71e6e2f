"""Settings of learned policies: the part ``learned`` of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ponderttt.errors import ConfigError, unknown
from ponderttt.features.table import FEATURES
from ponderttt.names import check_variants
from ponderttt.settings.gate import GateConfig
from ponderttt.settings.ppo import PPOConfig


@dataclass(frozen=True)
class RegressionConfig:
    """Ridge regression of the gain of an update."""

    #: To choose from, by leaving out streams.
    penalties: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

    def __post_init__(self) -> None:
        if not self.penalties or min(self.penalties) <= 0:
            raise ConfigError(
                f"learned.regression.penalties is {list(self.penalties)}; name at least one, greater than 0"
            )


@dataclass(frozen=True)
class Learning:
    """How one policy is trained on training streams."""

    #: Features that a policy sees: the base set, or all.
    features: Literal[32, 64] = 32
    #: Groups of the table of features that it does not see.
    leave_out: tuple[str, ...] = ()
    #: Random sequences through each training stream, which set the scale of features and the percentiles of scores.
    sequences: int = 4
    #: Frozen logits of training streams that are kept in memory, GB; those of others are made again at every visit.
    logits_gb: float = 3.0
    #: A backbone of the grid: its network is used as it is, and only the scale of features is learned on this one.
    taken_from: str | None = None
    regression: RegressionConfig = RegressionConfig()
    gate: GateConfig = GateConfig()  # noqa: RUF009 (frozen)
    ppo: PPOConfig = PPOConfig()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if self.sequences < 1:
            raise ConfigError(f"sequences is {self.sequences}; it is at least 1")
        if self.logits_gb < 0:
            raise ConfigError(f"logits_gb is {self.logits_gb}; it is at least 0")
        groups = list(dict.fromkeys(feature.group for feature in FEATURES))
        for group in self.leave_out:
            if group not in groups:
                raise ConfigError(unknown("leave_out", group, groups))


@dataclass(frozen=True)
class LearnedConfig(Learning):
    """How all policies are trained, and by name what is trained otherwise: ``ppo-{variant}`` in ``grid.methods``.

    A variant states all that is not a default; it takes nothing from the study's own settings.
    """

    variants: dict[str, Learning] = field(default_factory=dict)

    def of(self, variant: str | None) -> Learning:
        """The settings of a variant, or the study's own."""
        return self if variant is None else self.variants[variant]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.taken_from is not None:
            raise ConfigError(
                f"learned.taken_from is {self.taken_from}; set it in one of learned.variants, so that something is trained"
            )
        check_variants(self.variants)
