"""Settings of every kind of fast weights: the section ``fast_weights``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ponderttt.settings.mapping import settings
from ponderttt.settings.values import Count, Positive, PositiveShare, VariantName


@settings
class TTTConfig:
    """TTT-Linear layer on the final hidden state (Sun et al. 2024, arXiv:2407.04620)."""

    heads: Count = Field(default=1, description="Number of heads.")
    head_dim: Count = Field(default=64, description="Width of a head.")
    mini_batch: Count = Field(default=16, description="Tokens per inner step.")
    conv_width: Count = Field(
        default=4, description="Taps of the causal convolution, including the current token."
    )
    base_inner_rate: Positive = Field(default=1.0, description="Inner learning rate before the learned gate.")


@settings
class LoRAConfig:
    """LoRA on the final hidden state."""

    rank: Count = Field(default=16, description="Rank of the adapter.")
    inner_rate: Positive = Field(default=1e-3, description="Initial learning rate of an update.")
    token_share: PositiveShare = Field(
        default=1.0, description="Fraction of the chunk's tokens that an update uses."
    )
    token_choice: Literal["even", "entropy"] = Field(
        default="even",
        description="Which tokens those are: spread evenly over the chunk, or those of which the frozen model is least "
        "certain.",
    )
    clip_norm: Positive = Field(default=1.0, description="Largest norm of an inner gradient.")


@settings
class SuffixConfig:
    """The MLP down-projections of the last blocks."""

    blocks: Count = Field(
        default=2,
        description="Number of adapted blocks, counted from the end; split_layer of the model must leave at least as many.",
    )
    target: Literal["lora", "down"] = Field(
        default="down", description="lora: adapt a low-rank change of the projection. down: adapt all of it."
    )
    rank: Count = Field(default=16, description="Rank of the low-rank change.")
    inner_rate: Positive = Field(
        default=0.02,
        description="Initial learning rate of an update, in units of F^-½ per element of the matrix (F: inner size of the "
        "MLP).",
    )
    # At a quarter an update costs six tenths of its cost at a half, and gains three quarters as much (validation streams).
    token_share: PositiveShare = Field(
        default=0.25,
        description="Fraction of the chunk's tokens, spread evenly, whose loss an update uses.",
    )
    clip_norm: Positive = Field(default=1.0, description="Largest norm of an inner gradient.")


@settings
class MemoryConfig:
    """Stored pairs of hidden state and next token, mixed into the model's distribution."""

    capacity: Count = Field(
        default=3072, description="Largest number of stored pairs; the oldest are dropped."
    )
    inverse_temperature: Positive = Field(
        default=20.0, description="Initial factor of the cosine similarities under the softmax."
    )
    mixing_weight: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.05,
        description="Initial weight of the memory in the mixture where the nearest pair has similarity 0.6 and the frozen "
        "prediction has 2 nats of entropy.",
    )
    mixing_similarity: float = Field(
        default=9.0, description="Initial slope of that weight's logit in the similarity of the nearest pair."
    )
    mixing_entropy: float = Field(
        default=0.3,
        description="Initial slope of that logit in the entropy of the frozen prediction, per nat.",
    )
    learning_rate: Positive = Field(
        default=0.02, description="Learning rate of its slow weights, instead of training.learning_rate."
    )


@settings
class FastWeightsConfig:
    """Settings of every kind of fast weights."""

    ttt: TTTConfig = TTTConfig()
    lora: LoRAConfig = LoRAConfig()
    suffix: SuffixConfig = SuffixConfig()
    memory: MemoryConfig = MemoryConfig()


@settings
class FastWeightsSettings(FastWeightsConfig):
    """Settings of the study's fast weights, and of its variants."""

    variants: dict[VariantName, FastWeightsConfig] = Field(
        default_factory=dict,
        description="Named settings other than these, used as {kind}-{variant} in grid.fast_weights. A variant starts from "
        "the defaults, not from the study's settings.",
    )
