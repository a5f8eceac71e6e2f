"""Settings of rules: the section ``rules``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, WithJsonSchema

from ponderttt.actions import Action
from ponderttt.settings.mapping import KeyProblem, settings
from ponderttt.settings.values import NotNegative, PositiveShare, one_of

ACTIONS = [action.name for action in Action]
ActionName = Annotated[str, one_of(ACTIONS), WithJsonSchema({"enum": ACTIONS})]


@settings
class RulesConfig:
    """How rules turn a signal into actions."""

    allocation: tuple[NotNegative, ...] = Field(
        default=(),
        description="Shares of SKIP, UPDATE_1, UPDATE_2 and UPDATE_4 that percentile rules aim at. Empty: the shares of "
        "greatest entropy whose mean cost is the budget.",
    )
    ema_step: PositiveShare = Field(
        default=0.1,
        description="Step of the moving averages that the rules reconstruction and adaptive hold.",
    )
    schedule: tuple[ActionName, ...] = Field(
        default=("UPDATE_2", "UPDATE_2", "UPDATE_1", "SKIP", "SKIP", "SKIP"),
        min_length=1,
        description="Actions of the method schedule, one per chunk; the last one repeats.",
    )

    def __post_init__(self) -> None:
        if self.allocation and (len(self.allocation) != len(ACTIONS) or not sum(self.allocation)):
            raise KeyProblem(
                "allocation",
                f"must have one share for each of {', '.join(ACTIONS)}, not all 0; got {list(self.allocation)}",
            )
