"""Training of slow weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingConfig:
    """Training of slow weights across training streams, truncated back-propagation under ``score_first``."""

    epochs: int = 2
    learning_rate: float = 2e-3
    warmup_share: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    #: Chunks per truncated window: gradients flow through the updates of that many consecutive chunks.
    window_chunks: int = 3
    #: Tokens of a chunk that the outer loss samples (an unbiased estimate); ``None`` is all.
    outer_tokens: int | None = 128
    #: Share of training streams kept for choosing the best epoch.
    validation_share: float = 0.2
    checkpoint_every_steps: int = 10
