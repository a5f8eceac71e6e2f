"""Settings of the training of a gate."""

from __future__ import annotations

from dataclasses import dataclass

from ponderttt.errors import ConfigError


@dataclass(frozen=True)
class GateConfig:
    """Training of the binary gate through the stream: L_CE + ``ttt_weight``·L_TTT + ``cost_weight``·L_cost."""

    #: Passes over the training streams; each stream is one optimiser step.
    epochs: int = 8
    learning_rate: float = 3e-3
    #: Of the Gumbel-softmax samples of hard gates: held over ``warmup_share`` of the steps, then lowered geometrically.
    temperature_start: float = 1.0
    temperature_end: float = 0.1
    warmup_share: float = 0.2
    ttt_weight: float = 0.1
    cost_weight: float = 0.1
    clip_norm: float = 1.0
    checkpoint_every_steps: int = 10

    def __post_init__(self) -> None:
        for key in ("epochs", "checkpoint_every_steps"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} is {getattr(self, key)}; it is at least 1")
        for key in ("learning_rate", "temperature_start", "temperature_end", "clip_norm"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"{key} is {getattr(self, key)}; it is greater than 0")
        for key in ("ttt_weight", "cost_weight"):
            if not getattr(self, key) >= 0:
                raise ConfigError(f"{key} is {getattr(self, key)}; it is at least 0")
        if not 0 <= self.warmup_share <= 1:
            raise ConfigError(f"warmup_share is {self.warmup_share}; it lies between 0 and 1")
