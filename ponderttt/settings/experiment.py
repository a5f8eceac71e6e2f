"""The experiment: one YAML file as frozen dataclasses; an unknown or bad key is an error that names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ponderttt.errors import ConfigError, unknown
from ponderttt.settings.corpus import CorpusConfig
from ponderttt.settings.fast_weights import FastWeightsSettings
from ponderttt.settings.grid import GridConfig
from ponderttt.settings.held_out import shared_rows
from ponderttt.settings.learning import LearnedConfig
from ponderttt.settings.mapping import from_mapping
from ponderttt.settings.model import ModelConfig
from ponderttt.settings.rules import RulesConfig
from ponderttt.settings.statistics import StatisticsConfig
from ponderttt.settings.training import TrainingConfig


@dataclass(frozen=True)
class Experiment:
    """The whole study; one YAML file."""

    models: dict[str, ModelConfig]
    corpora: dict[str, CorpusConfig]
    grid: GridConfig
    data_dir: str = "data"
    results_dir: str = "results"
    chunk_size: int = 512
    cache: Literal["on", "off", "auto"] = "auto"
    #: ``auto`` caches hidden states up to this many bytes per (model, corpus).
    cache_limit_bytes: int = 20_000_000_000
    fast_weights: FastWeightsSettings = FastWeightsSettings()  # noqa: RUF009 (frozen)
    rules: RulesConfig = RulesConfig()  # noqa: RUF009 (frozen)
    training: TrainingConfig = TrainingConfig()  # noqa: RUF009 (frozen)
    learned: LearnedConfig = LearnedConfig()  # noqa: RUF009 (frozen)
    statistics: StatisticsConfig = StatisticsConfig()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if self.chunk_size < 2:
            raise ConfigError(f"chunk_size is {self.chunk_size}; a chunk has at least 2 tokens")
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
        for name, learning in self.learned.variants.items():
            if learning.taken_from is not None and learning.taken_from not in self.grid.models:
                key = f"learned.variants.{name}.taken_from"
                raise ConfigError(unknown(key, learning.taken_from, self.grid.models))
        for name, corpus in self.corpora.items():
            source = self.corpora.get(corpus.source or "")
            if corpus.is_control and (source is None or source.is_control):
                raise ConfigError(f"corpora.{name}.source: '{corpus.source}' is no corpus of source files")
            if corpus.is_control and name in (self.grid.train_corpus, *self.grid.eval_corpora):
                raise ConfigError(
                    f"corpora.{name} is of kind {corpus.kind}; name it in grid.control_corpora, not among what is learned "
                    "from or held out"
                )
        for name in self.grid.control_corpora:
            if not self.corpora[name].is_control:
                raise ConfigError(
                    f"grid.control_corpora holds {name}, of kind {self.corpora[name].kind}; a control is of kind "
                    "random_tokens or repeated"
                )
        if self.grid.train_corpus in self.grid.eval_corpora:
            raise ConfigError(
                f"grid.train_corpus {self.grid.train_corpus} is also in grid.eval_corpora: nothing would be held out"
            )
        for name in self.grid.eval_corpora:
            wrong = shared_rows(self.corpora[self.grid.train_corpus], self.corpora[name])
            if wrong is not None:
                raise ConfigError(f"corpora.{name} {wrong}")


def load(path: Path | str) -> Experiment:
    """Read an experiment from a YAML file.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds a bad key.
    """
    import yaml

    try:
        mapping = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: not a readable configuration file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    return from_mapping(Experiment, mapping)
