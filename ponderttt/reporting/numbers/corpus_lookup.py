"""References of a policy under a budget that all streams of a corpus share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ponderttt.actions import Action
from ponderttt.policies.budget import matched_probabilities, whole_units
from ponderttt.policies.sequences import Allowance
from ponderttt.records.sequences import StreamLosses
from ponderttt.reporting.numbers.lookups import Choose, Known, Lookup, Reference

#: Halvings of the interval that holds a price.
_HALVINGS = 60


class CorpusLookup(Lookup):
    """References of one arm at one budget over the corpus."""

    def references(self) -> dict[str, Reference]:
        """Return the references; none unless all sequences of every stream are known."""
        streams = [stream for seed in self.arm.seeds for stream in self.found.streams[seed].values()]
        if any(len(stream.levels[-1]) < len(Action) ** (len(stream.n_tokens) - 1) for stream in streams):
            return {}
        return super().references()

    @property
    def _deciding(self) -> float:
        """Mean cost of the chunks that spend: all but the last of each stream."""
        chunks, streams = len(self.arm.chunks.stream), len(self.arm.chunks.streams)
        cheapest = min(self.found.costs)
        return cheapest + (self.budget.mean_cost - cheapest) * chunks / max(1, chunks - streams)

    def _every(self, complete: bool) -> dict[str, Choose]:
        probability = matched_probabilities(self.found.costs, self._deciding)
        return {
            "oracle": self._at_one_price,
            "random": lambda row: [probability[k.sequences[:, :-1]].prod(axis=1) for k in row],
        }

    def _spending(self, stream: StreamLosses) -> Known:
        allowance = Allowance.of(self.found.costs, self._deciding, len(stream.n_tokens))
        return Known(stream.sequences, stream.losses, stream.nats, stream.width, allowance)

    def _at_one_price(self, row: Sequence[Known]) -> list[Float[np.ndarray, " K"]]:
        """Choose the best sequence of each stream at the lowest price of a unit at which all spend at most the budget."""
        _, size = whole_units(self.found.costs, self._deciding)
        decisions = sum(k.sequences.shape[1] - 1 for k in row)
        total = np.floor((self._deciding - min(self.found.costs)) / size * decisions + 1e-3)

        def chosen(price: float) -> list[int]:
            return [int((k.nats + price * k.units).argmin()) for k in row]

        def fits(price: float) -> bool:
            return sum(int(k.units[c]) for k, c in zip(row, chosen(price), strict=True)) <= total

        low, high = 0.0, max(float(np.ptp(k.nats)) for k in row) + 1.0
        if fits(low):
            high = low
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return [k.only(c) for k, c in zip(row, chosen(high), strict=True)]
