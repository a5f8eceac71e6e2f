"""The experiment: all settings of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ponderttt.errors import ConfigError, unknown
from ponderttt.settings.confirmatory import unknown_arm
from ponderttt.settings.context import ContextConfig
from ponderttt.settings.corpus import CorpusConfig
from ponderttt.settings.fast_weights import FastWeightsSettings
from ponderttt.settings.grid import GridConfig
from ponderttt.settings.held_out import shared_rows
from ponderttt.settings.layers import merged, read_layers
from ponderttt.settings.learning import LearnedConfig
from ponderttt.settings.mapping import from_mapping, settings
from ponderttt.settings.model import ModelConfig
from ponderttt.settings.rules import RulesConfig
from ponderttt.settings.sequences import SequencesConfig
from ponderttt.settings.statistics import StatisticsConfig
from ponderttt.settings.training import TrainingConfig
from ponderttt.settings.values import CountOrZero, FolderName, WorkflowFolder


@settings
class Experiment:
    """The settings of a study."""

    models: dict[FolderName, ModelConfig] = Field(
        description="Backbones by name; only those named in grid.models are fetched."
    )
    corpora: dict[FolderName, CorpusConfig] = Field(
        description="Corpora by name; only those named in grid are fetched."
    )
    grid: GridConfig = Field()
    data_dir: WorkflowFolder = Field(
        default="data",
        description="Folder of downloads, models, shards, chunks and hidden states; studies may share it.",
    )
    results_dir: WorkflowFolder = Field(
        default="results",
        description="Folder of all that depends on the grid; one run of the workflow uses it at a time.",
    )
    chunk_size: Annotated[int, Field(ge=2)] = Field(default=512, description="Tokens per chunk.")
    context: ContextConfig = ContextConfig()
    cache: Literal["on", "off", "auto"] = Field(
        default="auto", description="Keep hidden states on disk: always, never, or up to cache_limit_bytes."
    )
    cache_limit_bytes: CountOrZero = Field(
        default=20_000_000_000,
        description="auto keeps the hidden states of a model and corpus if they have at most this many bytes.",
    )
    fast_weights: FastWeightsSettings = FastWeightsSettings()
    rules: RulesConfig = RulesConfig()
    training: TrainingConfig = TrainingConfig()
    learned: LearnedConfig = LearnedConfig()
    sequences: SequencesConfig = SequencesConfig()
    statistics: StatisticsConfig = StatisticsConfig()

    def __post_init__(self) -> None:
        self._check_names()
        self._check_corpora()

    def _check_names(self) -> None:
        """Raise ConfigError unless each name in the grid has its settings."""
        for key, names, known in (
            ("grid.models", self.grid.models, self.models),
            ("grid.train_corpus", (self.grid.train_corpus,), self.corpora),
            ("grid.eval_corpora", self.grid.eval_corpora, self.corpora),
            ("grid.control_corpora", self.grid.control_corpora, self.corpora),
        ):
            for name in names:
                if name not in known:
                    raise ConfigError(unknown(key, name, known))
        for fast_weights in self.grid.all_fast_weights:
            variant, variants = fast_weights.variant, self.fast_weights.variants
            if variant is not None and variant not in variants:
                raise ConfigError(unknown("grid.fast_weights, fast_weights.variants", variant, variants))
        for method in self.grid.all_methods:
            variant = method.variant
            if variant is not None and variant not in self.learned.variants:
                raise ConfigError(unknown("grid.methods, learned.variants", variant, self.learned.variants))
        for listed in self.sequences.fast_weights:
            if listed not in self.grid.fast_weights:
                raise ConfigError(unknown("sequences.fast_weights", listed, self.grid.fast_weights))
        for name, learning in self.learned.variants.items():
            if learning.taken_from is not None and learning.taken_from not in self.grid.models:
                key = f"learned.variants.{name}.taken_from"
                raise ConfigError(unknown(key, learning.taken_from, self.grid.models))
        absent = unknown_arm(self.statistics.comparisons, self.grid)
        if absent is not None:
            raise ConfigError(absent)

    def _check_corpora(self) -> None:
        """Raise ConfigError unless controls are used as controls, and held-out corpora are held out."""
        grid = self.grid
        for name, corpus in self.corpora.items():
            source = self.corpora.get(corpus.source or "")
            if corpus.is_control and (source is None or source.is_control):
                raise ConfigError(
                    f"corpora.{name}.source must name a corpus of source files, got '{corpus.source}'"
                )
            if corpus.is_control and name in (grid.train_corpus, *grid.eval_corpora):
                raise ConfigError(
                    f"corpora.{name} is of kind {corpus.kind}, a control: name it in grid.control_corpora, not in "
                    "grid.train_corpus or grid.eval_corpora"
                )
        for name in grid.control_corpora:
            if not self.corpora[name].is_control:
                raise ConfigError(
                    f"grid.control_corpora holds {name}, of kind {self.corpora[name].kind}; a control is of kind "
                    "random_tokens or repeated"
                )
        if grid.train_corpus in grid.eval_corpora:
            raise ConfigError(
                f"grid.train_corpus {grid.train_corpus} is also in grid.eval_corpora: nothing would be held out"
            )
        for name in grid.eval_corpora:
            wrong = shared_rows(self.corpora[grid.train_corpus], self.corpora[name])
            if wrong is not None:
                raise ConfigError(f"corpora.{name} {wrong}")


def load(*paths: Path | str, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read an experiment from study files, later ones on top, and from ``overrides`` on top of them.

    Raises:
        ConfigError: a file is missing, is not YAML, or extends itself; a key is unknown, missing or has a bad value.
    """
    return from_mapping(Experiment, merged(read_layers(paths), overrides or {}))
