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
            ("grid.policy_corpus", (self.grid.deciding_corpus,), self.corpora),
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

    def sources_of(self, corpus: str) -> tuple[str, ...]:
        """Return the corpora of source files that a corpus is made of: its parts, or itself."""
        names = (name for part in self.corpora[corpus].parts.values() for name in part)
        return tuple(dict.fromkeys(names)) or (corpus,)

    def _check_corpora(self) -> None:
        """Raise ConfigError unless controls are used as controls, and held-out corpora are held out."""
        grid = self.grid
        for name, corpus in self.corpora.items():
            source = self.corpora.get(corpus.source or "")
            if corpus.is_control and (source is None or source.is_made):
                raise ConfigError(
                    f"corpora.{name}.source must name a corpus of source files, got '{corpus.source}'"
                )
            if corpus.is_control and name in (*grid.training_corpora, *grid.eval_corpora):
                raise ConfigError(
                    f"corpora.{name} is of kind {corpus.kind}, a control: name it in grid.control_corpora, not in "
                    "grid.train_corpus, grid.policy_corpus or grid.eval_corpora"
                )
            self._check_parts(name)
        for name in grid.control_corpora:
            if not self.corpora[name].is_control:
                raise ConfigError(
                    f"grid.control_corpora holds {name}, of kind {self.corpora[name].kind}; a control is of kind "
                    "random_tokens or repeated"
                )
        self._check_held_out()

    def _check_parts(self, mixed: str) -> None:
        """Raise ConfigError unless the parts of a mixed corpus are corpora of source files with long enough streams."""
        corpus = self.corpora[mixed]
        for part, names in corpus.parts.items():
            for name in names:
                key = f"corpora.{mixed}.parts.{part}"
                if name not in self.corpora:
                    raise ConfigError(unknown(key, name, self.corpora))
                source, needed = self.corpora[name], corpus.segment_chunks or 0
                if source.is_made:
                    raise ConfigError(
                        f"{key} names {name}, of kind {source.kind}; a part is a corpus of source files"
                    )
                if source.chunks_per_stream is not None and source.chunks_per_stream < needed:
                    raise ConfigError(
                        f"{key} names {name}, whose streams have at most {source.chunks_per_stream} chunks; a segment has "
                        f"{needed}: raise corpora.{name}.chunks_per_stream or lower corpora.{mixed}.segment_chunks"
                    )

    def _check_held_out(self) -> None:
        """Raise ConfigError unless what is trained on and what is evaluated on are disjoint, as far as settings tell."""
        grid = self.grid
        keys = {grid.deciding_corpus: "grid.policy_corpus", grid.train_corpus: "grid.train_corpus"}
        if grid.policy_corpus == grid.train_corpus:
            raise ConfigError(
                f"grid.policy_corpus {grid.policy_corpus} is also grid.train_corpus: name another corpus, or leave it out"
            )
        held_out = [source for name in grid.eval_corpora for source in self.sources_of(name)]
        for name in (*keys, *held_out):
            # Stages of datasets compare a corpus with one other corpus.
            if grid.policy_corpus is not None and self.corpora[name].is_dataset:
                raise ConfigError(
                    f"grid.policy_corpus is for corpora of packages and files, but {name} is of kind {self.corpora[name].kind}"
                )
        for train, key in keys.items():
            if self.corpora[train].kind == "mixed":
                raise ConfigError(f"{key} names {train}, of kind mixed, which is for grid.eval_corpora only")
            if train in grid.eval_corpora:
                raise ConfigError(f"{key} {train} is also in grid.eval_corpora: nothing would be held out")
            for name in grid.eval_corpora:
                if train in self.sources_of(name):
                    raise ConfigError(
                        f"corpora.{name} has {train}, which is {key}, as a part: nothing would be held out"
                    )
                for source in self.sources_of(name):
                    wrong = shared_rows(self.corpora[train], self.corpora[source])
                    if wrong is not None:
                        raise ConfigError(f"corpora.{source} {wrong}")


def load(*paths: Path | str, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read an experiment from study files, later ones on top, and from ``overrides`` on top of them.

    Raises:
        ConfigError: a file is missing, is not YAML, or extends itself; a key is unknown, missing or has a bad value.
    """
    return from_mapping(Experiment, merged(read_layers(paths), overrides or {}))
