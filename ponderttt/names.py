"""The names of methods and fast weights, as they stand in configurations, paths and tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ponderttt.errors import ConfigError
from ponderttt.mapping import unknown

FIXED_METHODS = ("skip", "update_1", "update_2", "update_4")
#: What decides from signals, from chance or from a list; ``schedule`` follows ``rules.schedule``.
RULE_METHODS = ("random", "entropy", "loss", "reconstruction", "adaptive", "schedule")
#: Rules that are held to a budget; the schedule costs what its actions cost.
SPENDING_RULES = tuple(method for method in RULE_METHODS if method != "schedule")
#: Those that place a signal among its values on training streams.
CALIBRATED_METHODS = ("entropy", "loss", "reconstruction", "adaptive")
ORACLE_METHODS = ("greedy_oracle", "exhaustive_oracle")
#: All that spend ``grid.budget``, or one that their name states, such as ``entropy@1.5``.
BUDGETED_METHODS = (*SPENDING_RULES, *ORACLE_METHODS)
#: UPDATE_1 that learns from the wrong thing; what an update is worth must vanish or turn under them.
CONTROL_METHODS = ("shuffled", "sign_flipped", "other_stream")
OTHER_PROTOCOLS = ("in_chunk", "transductive")
#: Methods (arms without a trained policy) that the workflow can run, see docs/design.md.
METHODS = (*FIXED_METHODS, *RULE_METHODS, *ORACLE_METHODS, *CONTROL_METHODS, *OTHER_PROTOCOLS)

KINDS = ("ttt", "lora", "suffix", "memory")
#: ``{kind}`` or ``{kind}+context_{n}``: on top of a backbone that sees n preceding chunks.
FAST_WEIGHTS_PATTERN = re.compile(rf"({'|'.join(KINDS)})(?:\+context_([1-9]\d*))?")


def kind_and_context(fast_weights: str) -> tuple[str, int]:
    """The kind and the preceding chunks that the backbone sees, of a name such as ``memory+context_1``."""
    match = FAST_WEIGHTS_PATTERN.fullmatch(fast_weights)
    if match is None:
        raise ConfigError(
            f"{unknown('grid.fast_weights', fast_weights, KINDS)} (each also as '<kind>+context_<n>')"
        )
    return match[1], int(match[2] or 0)


def split_method(method: str) -> tuple[str, str]:
    """The name without its budget, and the suffix that states it: ("entropy", "@1.5"), or ("entropy", "")."""
    base, at, budget = method.partition("@")
    return base, at + budget


def stated_budget(method: str) -> float | None:
    """The budget that a method's name states; ``None`` where it states none."""
    _, suffix = split_method(method)
    return float(suffix[1:]) if suffix else None


def budget_of(method: str, budget: float) -> tuple[str, float]:
    """The method without its budget, and its budget: its own (``entropy@1.5``) or else the grid's."""
    return split_method(method)[0], stated_budget(method) or budget


def methods_of(fast_weights: str, methods: Sequence[str]) -> list[str]:
    """The methods that make sense for a kind of fast weights: only TTT can be read inside a chunk."""
    kind, _ = kind_and_context(fast_weights)
    return [method for method in methods if method != "in_chunk" or kind == "ttt"]


def check_method(method: str) -> None:
    """Raise ConfigError unless ``method`` is one of :data:`METHODS`, without a budget."""
    name, suffix = split_method(method)
    if name not in METHODS:
        raise ConfigError(unknown("grid.methods", name, METHODS))
    if suffix:
        raise ConfigError(
            f"grid.methods holds {method}; budgets other than grid.budget go into grid.more_budgets: [{suffix[1:] or '1.5'}]"
        )
