"""Settings of the training of a gate: the section ``learned.gate``."""

from __future__ import annotations

from pydantic import Field

from ponderttt.settings.mapping import settings
from ponderttt.settings.values import Count, NotNegative, Positive, Share


@settings
class GateConfig:
    """Training of the binary gate through the stream: L_CE + ``ttt_weight``·L_TTT + ``cost_weight``·L_cost."""

    epochs: Count = Field(
        default=8, description="Passes over the training streams; each stream is one optimiser step."
    )
    learning_rate: Positive = Field(default=3e-3, description="Learning rate of the optimiser.")
    temperature_start: Positive = Field(
        default=1.0,
        description="Temperature of the Gumbel-softmax samples of hard gates during the warm-up; then it falls "
        "geometrically.",
    )
    temperature_end: Positive = Field(default=0.1, description="Temperature at the last step.")
    warmup_share: Share = Field(
        default=0.2, description="Fraction of the steps that keep the first temperature."
    )
    ttt_weight: NotNegative = Field(default=0.1, description="Weight of the reconstruction loss.")
    cost_weight: NotNegative = Field(default=0.1, description="Weight of the mean gate, the cost.")
    clip_norm: Positive = Field(default=1.0, description="Largest norm of a gradient.")
    checkpoint_every_steps: Count = Field(default=10, description="Steps between two checkpoints.")
