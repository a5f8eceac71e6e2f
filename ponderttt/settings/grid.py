"""The arms that a study runs: the section ``grid``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ponderttt.contexts import ALONE, Context
from ponderttt.names import (
    CONTROL_METHODS,
    FIXED_METHODS,
    KINDS,
    LEARNED_METHODS,
    METHODS,
    ORACLE_METHODS,
    OTHER_PROTOCOLS,
    RULE_METHODS,
    FastWeightsName,
    MethodName,
)
from ponderttt.seeds import SEEDS
from ponderttt.settings.mapping import KeyProblem, UnknownName, settings
from ponderttt.settings.values import Distinct

Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
#: Editors complete examples.
FastWeightsText = Annotated[str, Field(examples=list(KINDS))]
MethodText = Annotated[str, Field(examples=list(METHODS))]
ContextText = Annotated[str, Field(examples=["alone", "full", "window_1", "context_1"])]
#: A mean cost between those of SKIP and UPDATE_4.
Budget = Annotated[float, Field(gt=1.0, lt=12.0)]


@settings
class GridConfig:
    """The arms of the table."""

    models: Distinct[str] = Field(min_length=1, description="Names in models.")
    fast_weights: Distinct[FastWeightsText] = Field(
        min_length=1,
        description=f"Kinds: {', '.join(KINDS)}; with -{{variant}} for settings of fast_weights.variants, and with "
        "+{context} on a backbone that attends to earlier chunks too, as in memory+full.",
    )
    methods: Distinct[MethodText] = Field(
        min_length=1,
        description=f"Fixed: {', '.join(FIXED_METHODS)}. Rules: {', '.join(RULE_METHODS)}. Learned: "
        f"{', '.join(LEARNED_METHODS)}. Oracles: {', '.join(ORACLE_METHODS)}. Controls: {', '.join(CONTROL_METHODS)}. "
        f"Protocols: {', '.join(OTHER_PROTOCOLS)} (in_chunk is for ttt only). A method that spends a budget may name its own, "
        "as in entropy@2; a learned one may name a variant, as in ppo-myopic.",
    )
    seeds: Distinct[Seed] = Field(
        min_length=1, description="Seeds; each has one training and one run of every method."
    )
    train_corpus: str = Field(description="Corpus that trains the slow weights; never evaluated on.")
    eval_corpora: Distinct[str] = Field(
        min_length=1, description="Held-out corpora; each has its own rows in the table."
    )
    policy_corpus: str | None = Field(
        default=None,
        description="Corpus that rules are calibrated on and learned policies are trained on, disjoint from train_corpus, so that "
        "they see adapters on streams that these were not trained on; null is train_corpus.",
    )
    contexts: Distinct[ContextText] = Field(
        default=("alone", "full"),
        description="Contexts of the plain backbone; each but alone is an arm of its own. alone: a chunk attends to itself. "
        "window_{n}: also to the n chunks before it, kept in a cache. full: to its whole stream, up to the model's limit. "
        "context_{n}: to the n chunks before it, which are read again.",
    )
    budget: Budget = Field(
        default=3.0,
        description="Mean cost per chunk of every rule, oracle and learned policy, in multiples of one SKIP.",
    )
    more_budgets: Distinct[Budget] = Field(
        default=(), description="Further budgets; their arms are named {method}@{budget}, as in entropy@1.5."
    )
    budget_unit: Literal["nominal", "flops"] = Field(
        default="nominal",
        description="nominal: budgets count nominal costs (1, 3, 6, 12). flops: they count the FLOPs of what runs. Both in "
        "multiples of SKIP.",
    )
    budget_over: Literal["stream", "corpus"] = Field(
        default="stream",
        description="stream: every stream spends its budget to the unit. corpus: all streams share it, at one price of a unit of "
        "cost, and spend at most the budget in all.",
    )
    control_corpora: Distinct[str] = Field(
        default=(),
        description="Corpora of kind random_tokens or repeated, on which skip, update_1 and update_4 run with the first seed.",
    )

    def __post_init__(self) -> None:
        for fast_weights in self.fast_weights:
            FastWeightsName.parse(fast_weights)
        for context in self.contexts:
            try:
                Context.parse(context)
            except ValueError as problem:
                raise KeyProblem("contexts", f"has an {problem}") from None
        for method in map(MethodName.parse, self.methods):
            # The workflow adds the backbone without fast weights by itself.
            if method.context is not None:
                raise UnknownName(str(method), METHODS, "methods")
        if "skip" not in self.methods:
            raise KeyProblem("methods", "lacks 'skip': without it no gain can be told from training")
        oracles = [str(method) for method in map(MethodName.parse, self.methods) if method.is_oracle]
        if self.budget_over == "corpus" and oracles:
            raise KeyProblem(
                "budget_over", f"is corpus, but {oracles[0]} spends by stream: take it out of grid.methods"
            )
        if self.budget in self.more_budgets:
            raise KeyProblem("more_budgets", f"has {self.budget}, which is grid.budget: name it once")
        for method in self.all_methods:
            if self.all_methods.count(method) > 1 or method.budget == self.budget:
                raise KeyProblem("methods", f"has {method}, whose budget is one of the grid's: name it once")

    @property
    def deciding_corpus(self) -> str:
        """The corpus that rules and learned policies are made on."""
        return self.policy_corpus or self.train_corpus

    @property
    def training_corpora(self) -> tuple[str, ...]:
        """The corpora that nothing is evaluated on."""
        return tuple(dict.fromkeys((self.train_corpus, self.deciding_corpus)))

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

    @property
    def all_contexts(self) -> tuple[Context, ...]:
        """The contexts of the plain backbone, in order, with those below fast weights."""
        named = {Context.parse(context) for context in self.contexts}
        # Every arm is compared with the plain backbone on a chunk alone, whatever the grid names.
        found = {ALONE, *named, *(name.context for name in self.all_fast_weights)}
        return tuple(sorted(found, key=lambda context: context.order))
