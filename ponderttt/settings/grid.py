"""Which arms a study runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ponderttt.errors import ConfigError, unknown
from ponderttt.names import METHODS, FastWeightsName, MethodName
from ponderttt.seeds import SEEDS


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
        for name in map(MethodName.parse, self.methods):
            # The workflow adds the backbone without fast weights by itself.
            if name.context is not None:
                raise ConfigError(unknown("grid.methods", name, METHODS))
        for fast_weights in self.fast_weights:
            FastWeightsName.parse(fast_weights)
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
        for method in map(MethodName.parse, self.methods):
            if self.all_methods.count(method) > 1 or method.budget == self.budget:
                raise ConfigError(
                    f"grid.methods holds {method}, whose budget is one of the grid's: name it once"
                )

    @property
    def all_methods(self) -> tuple[MethodName, ...]:
        """The methods, and those that spend the grid's budget once more at each further budget."""
        methods = tuple(map(MethodName.parse, self.methods))
        spending = [method for method in methods if method.is_budgeted and method.budget is None]
        return (*methods, *(method.at(budget) for budget in self.more_budgets for method in spending))

    @property
    def all_fast_weights(self) -> tuple[FastWeightsName, ...]:
        """The names of ``fast_weights``, parsed."""
        return tuple(map(FastWeightsName.parse, self.fast_weights))
