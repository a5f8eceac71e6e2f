"""The one policy type: a pure function from what has been observed to an action.

An :class:`Observation` has fields for what is known once chunk t has been *scored* and before anything is learned
from it.  There is no field for a loss measured after adapting on chunk t, so no policy can look at one.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from jaxtyping import Array, Float, Int, Key


class Observation(NamedTuple):
    """Of one stream, after scoring chunk t."""

    chunk_index: Int[Array, ""]
    chunks_left: Int[Array, ""]
    #: Committed loss of chunk t, nats per token: scored before any learning from it.
    loss: Float[Array, ""]
    #: Loss of the frozen backbone on chunk t.
    loss_frozen: Float[Array, ""]
    #: Mean entropy of the frozen model's predictions on chunk t, nats.
    entropy: Float[Array, ""]
    #: Nominal cost that the budget still allows for this stream, in multiples of SKIP.
    budget_left: Float[Array, ""]


class Decision(NamedTuple):
    """What to do with chunk t."""

    state: Any
    #: Index of an :class:`ponderttt.actions.Action`.
    action: Int[Array, ""]
    #: The signal that decided, for the record; NaN where there is none.
    score: Float[Array, ""]


class Policy(Protocol):
    """Pure: equal arguments give equal decisions; all memory is in ``state``."""

    @property
    def params(self) -> Any:
        """Parameters, a pytree."""

    @property
    def budget(self) -> float | None:
        """Mean nominal cost per chunk that the policy is held to, or ``None``."""

    def init(self) -> Any:
        """State at the start of a stream."""

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """The action for chunk t of one stream; traceable."""
