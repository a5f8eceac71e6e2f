"""Comparisons that a study declares as confirmatory: their names, and the check that the grid has their arms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

from ponderttt.errors import ConfigError, unknown
from ponderttt.names import OTHER_PROTOCOLS, MethodName
from ponderttt.settings.grid import GridConfig

_FORM = "as in 'memory update_1 vs skip'"


class ArmLabel(NamedTuple):
    """Fast weights (``none`` for the backbone alone) and method of an arm."""

    fast_weights: str
    method: str

    def __str__(self) -> str:
        return self.method if self.fast_weights == "none" else f"{self.fast_weights} {self.method}"


class Comparison(NamedTuple):
    """An arm and the reference that it is compared with."""

    arm: ArmLabel
    reference: ArmLabel

    @classmethod
    def parse(cls, text: str) -> Comparison:
        """Parse ``memory update_1 vs skip``; a reference without fast weights has those of the arm, or is a backbone.

        Raises:
            ValueError: the text has another form, or an arm is compared with itself.
        """
        sides = [side.split() for side in text.split(" vs ")]
        if len(sides) != 2 or not all(1 <= len(words) <= 2 for words in sides):
            raise ValueError(f"must be an arm and its reference, {_FORM}, got {text!r}")
        arm = _label(sides[0], None)
        if arm is None:
            raise ValueError(f"must begin with the fast weights of the arm, {_FORM}, got {text!r}")
        reference = _label(sides[1], arm.fast_weights)
        assert reference is not None
        if reference == arm:
            raise ValueError(f"compares an arm with itself: {text!r}")
        return cls(arm, reference)

    def __str__(self) -> str:
        same = self.arm.fast_weights == self.reference.fast_weights
        return f"{self.arm} vs {self.reference.method if same else self.reference}"


def _label(words: Sequence[str], fast_weights: str | None) -> ArmLabel | None:
    """Return the arm of one or two words; None for a method without fast weights."""
    if len(words) == 2:
        return ArmLabel(*words)
    (method,) = words
    if _is_backbone(method):
        return ArmLabel("none", method)
    return None if fast_weights is None else ArmLabel(fast_weights, method)


def _is_backbone(method: str) -> bool:
    try:
        return MethodName.parse(method).context is not None
    except ConfigError:
        return False


def _checked(text: str) -> str:
    Comparison.parse(text)
    return text


#: A comparison in a configuration.
ComparisonText = Annotated[
    str, AfterValidator(_checked), Field(examples=["memory update_1 vs skip", "memory+full update_1 vs full"])
]


def unknown_arm(comparisons: Sequence[Comparison], grid: GridConfig) -> str | None:
    """Return the problem with the first arm of ``comparisons`` that the table of a grid cannot compare; None without one."""
    known = [str(MethodName.plain(context)) for context in grid.all_contexts]
    known += [
        f"{fast_weights} {method}"
        for fast_weights in grid.all_fast_weights
        for method in grid.all_methods
        if method.base not in OTHER_PROTOCOLS
    ]
    for place, comparison in enumerate(comparisons):
        for label in comparison:
            where = f"statistics.confirmatory[{place}]"
            if label.method in OTHER_PROTOCOLS:
                return f"{where} has {label}: {label.method} is a protocol without results, so nothing is compared with it"
            if str(label) not in known:
                return f"{unknown(where, label, known)} Add the arm to the grid, or give the study a list of its own ([] for none)"
    return None
