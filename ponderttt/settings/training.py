"""Settings of the training of slow weights: the section ``training``."""

from __future__ import annotations

from pydantic import Field

from ponderttt.settings.mapping import settings
from ponderttt.settings.values import Count, NotNegative, Positive, Share


@settings
class TrainingConfig:
    """Training of slow weights on training streams: truncated back-propagation under ``score_first``."""

    epochs: Count = Field(default=2, description="Passes over the training streams.")
    learning_rate: Positive = Field(default=2e-3, description="Peak learning rate of AdamW.")
    warmup_share: Share = Field(
        default=0.1, description="Fraction of the steps during which the learning rate rises to its peak."
    )
    weight_decay: NotNegative = Field(default=0.0, description="Weight decay of AdamW.")
    clip_norm: Positive = Field(default=1.0, description="Largest norm of an outer gradient.")
    window_chunks: Count = Field(
        default=3,
        description="Chunks per truncated window: gradients flow through the updates of this many consecutive chunks.",
    )
    outer_tokens: Count | None = Field(
        default=128,
        description="Tokens of a chunk that the outer loss samples (an unbiased estimate); null uses all.",
    )
    validation_share: Share = Field(
        default=0.2, description="Fraction of the training streams that is kept out to choose the best epoch."
    )
    checkpoint_every_steps: Count = Field(default=10, description="Steps between two checkpoints.")
