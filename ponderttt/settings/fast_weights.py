"""Settings of every kind of fast weights: the part ``fast_weights`` of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ponderttt.errors import ConfigError
from ponderttt.names import check_variants


@dataclass(frozen=True)
class TTTConfig:
    """TTT-Linear layer on the final hidden state (Sun et al. 2024, arXiv:2407.04620)."""

    heads: int = 1
    head_dim: int = 64
    mini_batch: int = 16
    conv_width: int = 4
    base_inner_rate: float = 1.0


@dataclass(frozen=True)
class LoRAConfig:
    """LoRA on the final hidden state; an update sees ``token_share`` of the chunk (1.0: all of it)."""

    rank: int = 16
    inner_rate: float = 1e-3
    token_share: float = 1.0
    #: Which tokens those are: spread evenly over the chunk, or the most uncertain ones of the frozen model.
    token_choice: Literal["even", "entropy"] = "even"
    clip_norm: float = 1.0


@dataclass(frozen=True)
class SuffixConfig:
    """The MLP down-projections of the last blocks: all of them (``down``) or a low-rank change (``lora``)."""

    #: Blocks that are adapted; the model's ``split_layer`` leaves at least so many.
    blocks: int = 2
    target: Literal["lora", "down"] = "down"
    #: Of the low-rank change.
    rank: int = 16
    #: In units of F^-½ per element of the matrix (F: inner size of the MLP), for either target.
    inner_rate: float = 0.02
    #: Share of the chunk, spread evenly, whose loss an update looks at: at a quarter an update costs six tenths of
    #: what it costs at one half, and gains three quarters of it (validation streams).
    token_share: float = 0.25
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise ConfigError(f"blocks is {self.blocks}; suffix adaptation adapts at least 1")
        if self.rank < 1:
            raise ConfigError(f"rank is {self.rank}; it is at least 1")
        if not 0 < self.token_share <= 1:
            raise ConfigError(f"token_share is {self.token_share}; it is greater than 0 and at most 1")
        if not self.inner_rate > 0:
            raise ConfigError(f"inner_rate is {self.inner_rate}; it is greater than 0")


@dataclass(frozen=True)
class MemoryConfig:
    """Stored (hidden state, next token) pairs that are mixed into the model's distribution."""

    #: Pairs that are held at most; the oldest go first.
    capacity: int = 3072
    #: Where training starts from: softmax temperature⁻¹ of cosine similarities; weight of the memory in the mixture where
    #: the nearest pair has similarity 0.6 and the frozen prediction 2 nats of entropy; slopes of its logit in both.
    inverse_temperature: float = 20.0
    mixing_weight: float = 0.05
    mixing_similarity: float = 9.0
    mixing_entropy: float = 0.3
    #: Of what is fitted; instead of ``training.learning_rate``.
    learning_rate: float = 0.02

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ConfigError(f"capacity is {self.capacity}; a memory holds at least 1 pair")
        if not self.inverse_temperature > 0:
            raise ConfigError(f"inverse_temperature is {self.inverse_temperature}; it is greater than 0")
        if not 0 < self.mixing_weight < 1:
            raise ConfigError(
                f"mixing_weight is {self.mixing_weight}; it lies between 0 and 1, both excluded"
            )


@dataclass(frozen=True)
class FastWeightsConfig:
    """Every kind of fast weights with its settings."""

    ttt: TTTConfig = TTTConfig()
    lora: LoRAConfig = LoRAConfig()
    suffix: SuffixConfig = SuffixConfig()
    memory: MemoryConfig = MemoryConfig()


@dataclass(frozen=True)
class FastWeightsSettings(FastWeightsConfig):
    """Settings of the study, and by name those of other modules: ``lora-{variant}`` in ``grid.fast_weights``.

    A variant states all that is not a default; it takes nothing from the study's own settings.
    """

    variants: dict[str, FastWeightsConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_variants(self.variants)
