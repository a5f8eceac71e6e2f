"""The names of methods and fast weights, as they stand in configurations, paths and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ponderttt.errors import ConfigError, unknown

FIXED_METHODS = ("skip", "update_1", "update_2", "update_4")
#: What decides from signals, from chance or from a list; ``schedule`` follows ``rules.schedule``.
RULE_METHODS = ("random", "entropy", "loss", "reconstruction", "adaptive", "schedule")
#: Rules that are held to a budget; the schedule costs what its actions cost.
SPENDING_RULES = tuple(method for method in RULE_METHODS if method != "schedule")
#: Those that place a signal among its values on training streams.
CALIBRATED_METHODS = ("entropy", "loss", "reconstruction", "adaptive")
ORACLE_METHODS = ("greedy_oracle", "exhaustive_oracle")
#: Policies that are trained on training streams.
LEARNED_METHODS = ("regression", "gumbel_hard", "gumbel_soft", "ppo")
#: What ``ponderttt score --policy`` knows by name: no training, no look ahead.
NAMED_POLICIES = (*FIXED_METHODS, *RULE_METHODS)
#: All that spend ``grid.budget``, or one that their name states, such as ``entropy@1.5``; ``gumbel_soft`` makes one update
#: after every chunk, of which it keeps a share.
BUDGETED_METHODS = (*SPENDING_RULES, *ORACLE_METHODS, "regression", "gumbel_hard", "ppo")
#: UPDATE_1 that learns from the wrong thing; what an update is worth must vanish or turn under them.
CONTROL_METHODS = ("shuffled", "sign_flipped", "other_stream")
OTHER_PROTOCOLS = ("in_chunk", "transductive")
#: Methods that the workflow can run, see docs/design.md.
METHODS = (
    *FIXED_METHODS,
    *RULE_METHODS,
    *LEARNED_METHODS,
    *ORACLE_METHODS,
    *CONTROL_METHODS,
    *OTHER_PROTOCOLS,
)

KINDS = ("ttt", "lora", "suffix", "memory")
#: ``{kind}`` or ``{kind}-{variant}``, with settings of ``fast_weights.variants``; each also with ``+context_{n}``, on top of
#: a backbone that sees n preceding chunks.
FAST_WEIGHTS_PATTERN = re.compile(rf"({'|'.join(KINDS)})(?:-([a-z0-9_]+))?(?:\+context_([1-9]\d*))?")


def kind_and_context(fast_weights: str) -> tuple[str, int]:
    """The kind and the preceding chunks that the backbone sees, of a name such as ``memory+context_1``."""
    match = _matched(fast_weights)
    return match[1], int(match[3] or 0)


#: Why some fast weights have no context.
NO_CONTEXT = "the blocks that suffix adapts see one chunk at a time"


def sees_no_context(kind: str, context_chunks: int) -> bool:
    """Whether fast weights of a kind are asked for a context that they cannot see, see :data:`NO_CONTEXT`."""
    return kind == "suffix" and context_chunks > 0


def settings_variant(fast_weights: str) -> str | None:
    """Whose settings a module has instead of the study's: a name of ``fast_weights.variants``."""
    return _matched(fast_weights)[2]


def _matched(fast_weights: str) -> re.Match[str]:
    match = FAST_WEIGHTS_PATTERN.fullmatch(fast_weights)
    if match is None:
        raise ConfigError(
            f"{unknown('grid.fast_weights', fast_weights, KINDS)} (each also as '<kind>-<variant>' and '<kind>+context_<n>')"
        )
    return match


def check_variants(names: Iterable[str]) -> None:
    """Raise ConfigError unless settings are named so that ``ppo-{name}`` and ``lora-{name}`` can name them."""
    for name in names:
        if not re.fullmatch(r"[a-z0-9_]+", name):
            raise ConfigError(f"the variant '{name}' has a name of other characters than a-z, 0-9 and _")


def split_method(method: str) -> tuple[str, str]:
    """The method alone, and the suffix that states its budget: ("entropy", "@1.5"), or ("ppo", "") of ``ppo-myopic``."""
    name, at, budget = method.partition("@")
    return name.partition("-")[0], at + budget


def without_budget(method: str) -> str:
    """The method with its variant, at any budget: ``ppo-myopic`` of ``ppo-myopic@2``."""
    return method.partition("@")[0]


def variant_of(method: str) -> str | None:
    """What a learned method was trained with instead of the study's settings: a name of ``learned.variants``."""
    return without_budget(method).partition("-")[2] or None


def without_variant(method: str) -> str:
    """The method with its budget, without its variant: ``ppo@2`` of ``ppo-myopic@2``."""
    return "".join(split_method(method))


def stated_budget(method: str) -> float | None:
    """The budget that a method's name states; ``None`` where it states none."""
    _, suffix = split_method(method)
    return float(suffix[1:]) if suffix else None


def budget_of(method: str, budget: float) -> tuple[str, float]:
    """The method without its budget, and its budget: its own (``entropy@1.5``) or else the grid's."""
    return split_method(method)[0], stated_budget(method) or budget


def trained_as(method: str) -> str:
    """The name under which the policy of a learned method is trained: ``ppo`` learns for one budget, others for any."""
    return method if split_method(method)[0] == "ppo" else without_budget(method)


def methods_of(fast_weights: str, methods: Sequence[str]) -> list[str]:
    """The methods that make sense for a kind of fast weights: only TTT can be read inside a chunk."""
    kind, _ = kind_and_context(fast_weights)
    return [method for method in methods if method != "in_chunk" or kind == "ttt"]


def check_method(method: str) -> None:
    """Raise ConfigError unless ``method`` is one of :data:`METHODS`, with a budget (``entropy@2``) only if it spends one."""
    name, suffix = split_method(method)
    if name not in METHODS:
        raise ConfigError(unknown("grid.methods", name, METHODS))
    if variant_of(method) and name not in LEARNED_METHODS:
        raise ConfigError(f"grid.methods holds {method}; {name} is not trained, so it has no variant")
    if suffix and name not in BUDGETED_METHODS:
        raise ConfigError(f"grid.methods holds {method}; {name} holds no budget, so name it without")
    try:
        budget = stated_budget(method)
    except ValueError:
        raise ConfigError(f"grid.methods holds {method}; a budget is a number, as in {name}@2") from None
    if budget is not None and not 1.0 < budget < 12.0:
        raise ConfigError(
            f"grid.methods holds {method}; a mean cost lies between 1 (SKIP) and 12 (UPDATE_4), both excluded"
        )
    if suffix and f"@{budget:g}" != suffix:
        raise ConfigError(f"grid.methods holds {method}; write its budget as @{budget:g}")
