"""The names of methods and fast weights in configurations, paths and tables.

Each name is parsed once, where it enters, into a :class:`MethodName` or a :class:`FastWeightsName`; ``str()`` gives the
text back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ponderttt.contexts import ALONE, PATTERN, Context
from ponderttt.errors import ConfigError, unknown

FIXED_METHODS = ("skip", "update_1", "update_2", "update_4")
#: Hand-written rules; ``schedule`` follows ``rules.schedule``.
RULE_METHODS = ("random", "entropy", "loss", "reconstruction", "adaptive", "schedule")
#: Rules with a budget; a schedule costs what its actions cost.
SPENDING_RULES = tuple(method for method in RULE_METHODS if method != "schedule")
#: Rules that rank a signal among its values on training streams.
CALIBRATED_METHODS = ("entropy", "loss", "reconstruction", "adaptive")
ORACLE_METHODS = ("greedy_oracle", "exhaustive_oracle")
#: Policies that are trained on training streams.
LEARNED_METHODS = ("regression", "gumbel_hard", "gumbel_soft", "ppo")
#: Policies that ``ponderttt score --policy`` knows by name: no training, no look ahead.
NAMED_POLICIES = (*FIXED_METHODS, *RULE_METHODS)
#: Methods that spend ``grid.budget``, or the budget in their name, as in ``entropy@1.5``.  ``gumbel_soft`` is not one of
#: them: it makes one update after every chunk and keeps a share of it.
BUDGETED_METHODS = (*SPENDING_RULES, *ORACLE_METHODS, "regression", "gumbel_hard", "ppo")
#: UPDATE_1 on a wrong lesson: its gain must vanish or turn into a loss.
CONTROL_METHODS = ("shuffled", "sign_flipped", "other_stream")
OTHER_PROTOCOLS = ("in_chunk", "transductive")
#: Methods that ``grid.methods`` may name, see docs/design.md.
METHODS = (
    *FIXED_METHODS,
    *RULE_METHODS,
    *LEARNED_METHODS,
    *ORACLE_METHODS,
    *CONTROL_METHODS,
    *OTHER_PROTOCOLS,
)

KINDS = ("ttt", "lora", "suffix", "memory")
#: Why ``suffix`` has no ``context_n``.
NO_CONTEXT = "the blocks that suffix adapts cannot read chunks again"

_VARIANT = re.compile(r"[a-z0-9_]+")
_METHOD = re.compile(r"([^-@]+)(?:-([^@]*))?(?:@(.*))?")
_PLAIN = re.compile(rf"plain|{PATTERN}")
_FAST_WEIGHTS = re.compile(rf"({'|'.join(KINDS)})(?:-({_VARIANT.pattern}))?(?:\+({PATTERN}))?")


@dataclass(frozen=True)
class MethodName:
    """A method, as in ``entropy``, ``entropy@1.5``, ``ppo-myopic@2``; ``plain`` and ``full`` have no fast weights.

    Attributes:
        base: the method alone: one of :data:`METHODS`, ``plain``, or the name of a context.
        variant: settings of ``learned.variants`` that a learned method is trained with; None for the study's.
        budget: the budget in the name; None for ``grid.budget``.
    """

    base: str
    variant: str | None = None
    budget: float | None = None

    @classmethod
    def parse(cls, text: str) -> MethodName:
        """Parse a name.

        Raises:
            ConfigError: an unknown method, a variant of a method without training, a budget that is not one.
        """
        match = _METHOD.fullmatch(text)
        if match is None or (match[1] not in METHODS and not _PLAIN.fullmatch(match[1])):
            raise ConfigError(unknown("grid.methods", match[1] if match else text, METHODS))
        base, variant, budget = match.groups()
        where = f"grid.methods has {text}"
        if variant is not None and base not in LEARNED_METHODS:
            raise ConfigError(f"{where}; {base} is not trained, so it has no variant")
        if budget is None:
            return cls(base, variant)
        if base not in BUDGETED_METHODS:
            raise ConfigError(f"{where}; {base} has no budget, so name it without one")
        try:
            value = float(budget)
        except ValueError:
            raise ConfigError(f"{where}; a budget is a number, as in {base}@2") from None
        if not 1.0 < value < 12.0:
            raise ConfigError(
                f"{where}; a budget must be greater than 1 (SKIP) and less than 12 (UPDATE_4), got {budget}"
            )
        if f"{value:g}" != budget:
            raise ConfigError(f"{where}; write its budget as @{value:g}")
        return cls(base, variant, value)

    @classmethod
    def plain(cls, context: Context) -> MethodName:
        """The backbone without fast weights, in a context."""
        return cls("plain" if context == ALONE else str(context))

    def __str__(self) -> str:
        variant = "" if self.variant is None else f"-{self.variant}"
        return f"{self.base}{variant}" + ("" if self.budget is None else f"@{self.budget:g}")

    @property
    def context(self) -> Context | None:
        """Context of the backbone without fast weights; None for a method with fast weights."""
        if not _PLAIN.fullmatch(self.base):
            return None
        return ALONE if self.base == "plain" else Context.parse(self.base)

    @property
    def is_calibrated(self) -> bool:
        """Whether it ranks a signal among its values on training streams."""
        return self.base in CALIBRATED_METHODS

    @property
    def is_learned(self) -> bool:
        """Whether it is trained on training streams."""
        return self.base in LEARNED_METHODS

    @property
    def is_oracle(self) -> bool:
        """Whether it looks at later losses, so that it is a search and a replay."""
        return self.base in ORACLE_METHODS

    @property
    def is_budgeted(self) -> bool:
        """Whether it spends a budget."""
        return self.base in BUDGETED_METHODS

    @property
    def without_budget(self) -> MethodName:
        """The method with its variant, at the budget of the grid: ``ppo-myopic`` for ``ppo-myopic@2``."""
        return replace(self, budget=None)

    @property
    def without_variant(self) -> MethodName:
        """The method with its budget, trained with the settings of the study: ``ppo@2`` for ``ppo-myopic@2``."""
        return replace(self, variant=None)

    @property
    def trained_as(self) -> MethodName:
        """The name under which its policy is trained: PPO is trained for one budget, others for all."""
        return self if self.base == "ppo" else self.without_budget

    def at(self, budget: float) -> MethodName:
        """The same method with a budget in its name."""
        return replace(self, budget=budget)


@dataclass(frozen=True)
class FastWeightsName:
    """Fast weights, as in ``lora``, ``lora-rank_64``, ``memory+full``.

    Attributes:
        kind: one of :data:`KINDS`.
        variant: settings of ``fast_weights.variants``; None for the study's.
        context: what the backbone below attends to.
    """

    kind: str
    variant: str | None = None
    context: Context = ALONE

    @classmethod
    def parse(cls, text: str) -> FastWeightsName:
        """Parse a name.

        Raises:
            ConfigError: an unknown kind, a malformed name, a context that the kind cannot see.
        """
        match = _FAST_WEIGHTS.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{unknown('grid.fast_weights', text, KINDS)} (each also as '<kind>-<variant>' and '<kind>+<context>', with full, window_<n> or context_<n>)"
            )
        name = cls(match[1], match[2], Context.parse(match[3]) if match[3] else ALONE)
        if name.misses_context:
            raise ConfigError(
                f"grid.fast_weights has {text}: {NO_CONTEXT}; use "
                f"{replace(name, context=Context('window', name.context.chunks))}, which keeps their keys and values"
            )
        return name

    def __str__(self) -> str:
        variant = "" if self.variant is None else f"-{self.variant}"
        return f"{self.kind}{variant}" + ("" if self.context == ALONE else f"+{self.context}")

    @property
    def misses_context(self) -> bool:
        """Whether it has a context that it cannot see, see :data:`NO_CONTEXT`."""
        return self.kind == "suffix" and self.context.kind == "context"

    def runs(self, method: MethodName) -> bool:
        """Whether a method makes sense for it: only TTT can be read inside a chunk."""
        return method.base != "in_chunk" or self.kind == "ttt"
