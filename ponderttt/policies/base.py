"""The one policy type: a pure function from what was observed to an action.

An :class:`Observation` has what is known once chunk t is *scored* and before anything is learned from it.  It has no
field for a loss measured after adapting on chunk t, so no policy can look at one.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, Key


class Observation(NamedTuple):
    """What a policy sees of one stream after chunk t is scored.

    Attributes:
        chunk_index: t.
        chunks_left: number of chunks after chunk t.
        loss: committed loss of chunk t, before any learning from it; nats per token.
        loss_frozen: loss of the frozen backbone on chunk t, nats per token.
        entropy: mean entropy of the backbone's predictions on chunk t, nats.
        reconstruction: error of reconstructing the hidden states of chunk t before learning from it; needs no labels.
        budget_left: cost that the budget still allows for this stream, in multiples of SKIP.
        features: raw features of chunks ≤ t, in the order of :data:`ponderttt.features.table.FEATURES`.
    """

    chunk_index: Int[Array, ""]
    chunks_left: Int[Array, ""]
    loss: Float[Array, ""]
    loss_frozen: Float[Array, ""]
    entropy: Float[Array, ""]
    reconstruction: Float[Array, ""]
    budget_left: Float[Array, ""]
    features: Float[Array, " F"]


class Decision(NamedTuple):
    """What to do after chunk t.

    Attributes:
        state: state of the policy for the next chunk.
        action: index of an :class:`ponderttt.actions.Action`.
        score: the signal that decided, for the record; NaN if there is none.
        rank: percentile rank of the score among calibration chunks, 0..1; NaN if no rank decided.
        cuts: ranks from which UPDATE_1, UPDATE_2 and UPDATE_4 begin; NaN if no rank decided.
        scale: fraction of the update to keep, 0..1.  The update is charged in full.
    """

    state: Any
    action: Int[Array, ""]
    score: Float[Array, ""]
    rank: Float[Array, ""]
    cuts: Float[Array, " 3"]
    scale: Float[Array, ""] | float = 1.0


@runtime_checkable
class Policy(Protocol):
    """A pure policy: equal arguments give equal decisions, and all memory is in ``state``."""

    @property
    def params(self) -> Any:
        """Parameters, a pytree."""

    @property
    def budget(self) -> float | None:
        """Mean cost per chunk that the policy may spend, in multiples of SKIP; None if it has no budget."""

    @property
    def costs(self) -> tuple[float, ...]:
        """Cost of each action in the unit of the budget: nominal costs, or counted FLOPs in multiples of SKIP's."""

    def init(self) -> Any:
        """Return the state at the start of a stream."""

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """Decide after chunk t of one stream; traceable."""
