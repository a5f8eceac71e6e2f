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
    #: How badly the hidden states of chunk t were reconstructed before learning from it; label-free.
    reconstruction: Float[Array, ""]
    #: Cost that the budget still allows for this stream, in multiples of SKIP.
    budget_left: Float[Array, ""]
    #: The signals of :data:`ponderttt.features.table.FEATURES`, raw, of chunks ≤ t.
    features: Float[Array, " F"]


class Decision(NamedTuple):
    """What to do with chunk t."""

    state: Any
    #: Index of an :class:`ponderttt.actions.Action`.
    action: Int[Array, ""]
    #: The signal that decided, for the record; NaN where there is none.
    score: Float[Array, ""]
    #: Its percentile rank among calibration chunks, 0..1, and the ranks from which UPDATE_1, UPDATE_2 and UPDATE_4 begin;
    #: NaN where ranks decide nothing.
    rank: Float[Array, ""]
    cuts: Float[Array, " 3"]
    #: Share of the update that is kept, 0..1; anything but 1 is a soft decision, whose update is paid in full.
    scale: Float[Array, ""] | float = 1.0


class Policy(Protocol):
    """Pure: equal arguments give equal decisions; all memory is in ``state``."""

    @property
    def params(self) -> Any:
        """Parameters, a pytree."""

    @property
    def budget(self) -> float | None:
        """Mean cost per chunk that the policy is held to, in multiples of SKIP, or ``None``."""

    @property
    def costs(self) -> tuple[float, ...]:
        """What each action costs in the unit of the budget: nominal costs, or counted FLOPs in multiples of SKIP's."""

    def init(self) -> Any:
        """State at the start of a stream."""

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """The action for chunk t of one stream; traceable."""
