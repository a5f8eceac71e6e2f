"""How rules turn a signal into actions."""

from __future__ import annotations

from dataclasses import dataclass

from ponderttt.actions import Action
from ponderttt.errors import ConfigError, unknown


@dataclass(frozen=True)
class RulesConfig:
    """How rules turn a signal into actions."""

    #: Shares of SKIP, UPDATE_1, UPDATE_2 and UPDATE_4 that a percentile rule aims at; empty: those of greatest entropy
    #: that have the mean cost of the budget.
    allocation: tuple[float, ...] = ()
    #: Step of the moving average of the update rate that the reconstruction gate holds.
    ema_step: float = 0.1
    #: Actions of the method ``schedule`` by chunk; the last one goes on.
    schedule: tuple[str, ...] = ("UPDATE_2", "UPDATE_2", "UPDATE_1", "SKIP", "SKIP", "SKIP")

    def __post_init__(self) -> None:
        known = [action.name for action in Action]
        for name in self.schedule:
            if name not in known:
                raise ConfigError(unknown("rules.schedule", name, known))
        if not self.schedule:
            raise ConfigError("rules.schedule is empty: name the action of the first chunk at least")
        if self.allocation and (
            len(self.allocation) != len(known) or min(self.allocation) < 0 or not sum(self.allocation)
        ):
            raise ConfigError(
                f"rules.allocation is {list(self.allocation)}; it has a share of at least 0 for each of {', '.join(known)}"
            )
        if not 0 < self.ema_step <= 1:
            raise ConfigError(f"rules.ema_step is {self.ema_step}; it lies above 0 and up to 1")
