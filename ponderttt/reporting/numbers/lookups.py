"""References of a policy under budgets by stream, looked up in the losses of all sequences; :mod:`.exact` says which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ponderttt.actions import Action
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.policies.sequences import Allowance
from ponderttt.records.sequences import StreamLosses
from ponderttt.reporting.numbers.arms import Arm
from ponderttt.reporting.numbers.run_records import Budget
from ponderttt.reporting.numbers.sequences import AllSequences
from ponderttt.reporting.numbers.statistics import named_generator

#: Rank of the reference without a signal.
CONSTANT_RANK = 0.5
#: Random permutations of a policy's sequences among streams.
PERMUTATIONS = 9_999
_NOMINAL = np.array([action.nominal_cost for action in Action])


class Reference(NamedTuple):
    """A reference of a policy.

    Attributes:
        name: see :mod:`.exact`.
        arm: its losses and nominal costs.
        p: share of permutations of the policy's sequences among streams that lose no more; only of ``own_elsewhere``.
        sequences: number of sequences that it looks at, of the stream with the most.
        beam_width: width of the beam that found these; None if they are all there are.
    """

    name: str
    arm: Arm
    p: float | None
    sequences: int
    beam_width: int | None


@dataclass(frozen=True)
class Known:
    """What is known of one stream and seed: the K sequences that spend the budget."""

    sequences: Int[np.ndarray, "K N"]
    losses: Float[np.ndarray, "K N"]
    nats: Float[np.ndarray, " K"]
    width: int | None
    allowance: Allowance

    @property
    def units(self) -> Int[np.ndarray, " K"]:
        """Units that each sequence spends."""
        spent: Int[np.ndarray, " K"] = np.asarray(self.allowance.units)[self.sequences].sum(axis=1)
        return spent

    def only(self, place: int) -> Float[np.ndarray, " K"]:
        """Return the weights of a single sequence."""
        weights = np.zeros(len(self.nats))
        weights[place] = 1.0
        return weights

    @cached_property
    def place(self) -> dict[tuple[int, ...], int]:
        """Sequence → its row."""
        return {tuple(row): place for place, row in enumerate(self.sequences.tolist())}


#: Weights of the sequences of each stream, from what is known of all streams of a seed.
Choose = Callable[[Sequence[Known]], list[Float[np.ndarray, " K"]]]


@dataclass(frozen=True)
class Lookup:
    """References of one arm at one budget, see :func:`.exact.exact_references`."""

    arm: Arm
    found: AllSequences
    budget: Budget

    def references(self) -> dict[str, Reference]:
        """Return the references by name."""
        known = self._known()
        width = max((k.width or 0 for row in known for k in row), default=0) or None
        every = self._every(width is None)
        count = max(len(k.nats) for row in known for k in row)
        references = {
            name: Reference(
                name, self._as_arm(name, known, [weights(row) for row in known]), None, count, width
            )
            for name, weights in every.items()
        }
        # The losses of random decisions may be a mean, which belongs to no sequence.
        own = None if width or self.arm.name.base == "random" else self._own(known)
        if own is not None:
            elsewhere = [_elsewhere(row, rows) for row, rows in zip(known, own, strict=True)]
            name = "own_elsewhere"
            references[name] = Reference(
                name, self._as_arm(name, known, elsewhere), self._swapped_p(known, own), count, width
            )
        return references

    def _every(self, complete: bool) -> dict[str, Choose]:
        """Return what chooses the sequences of each reference, from what is known of all streams of a seed."""
        every: dict[str, Choose] = {"oracle": lambda row: [k.only(int(k.nats.argmin())) for k in row]}
        if complete:
            every["random"] = lambda row: [np.full(len(k.nats), 1 / len(k.nats)) for k in row]
            every["constant_rank"] = lambda row: [
                k.only(k.place[_at_constant_rank(k.allowance)]) for k in row
            ]
            every["best_schedule"] = _best_elsewhere
        return every

    def _known(self) -> list[list[Known]]:
        """Return what is known, by seed and stream of the arm."""
        arm, rows = self.arm, []
        lengths = np.bincount(arm.chunks.stream)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        for seed, digest in zip(arm.seeds, arm.module_digests, strict=True):
            if digest is not None and digest != self.found.module_digests[seed]:
                raise CorruptFileError(
                    f"the sequences of {arm.key} were enumerated with another trained adapter; rebuild them with the workflow"
                )
            row = []
            for s, stream_id in enumerate(arm.chunks.streams):
                stream = self.found.streams[seed].get(stream_id)
                tokens = arm.chunks.n_tokens[starts[s] : starts[s + 1]]
                if stream is None or not np.array_equal(stream.n_tokens, tokens):
                    raise CorruptFileError(
                        f"the sequences of {arm.key} are of other streams or chunks than it scored ({stream_id}); rebuild them "
                        "with the workflow"
                    )
                row.append(self._spending(stream))
            rows.append(row)
        return rows

    def _spending(self, stream: StreamLosses) -> Known:
        """Return the sequences of a stream that spend the budget."""
        allowance = Allowance.of(self.found.costs, self.budget.mean_cost, len(stream.n_tokens))
        all_of_them = Known(stream.sequences, stream.losses, stream.nats, stream.width, allowance)
        spends: Bool[np.ndarray, " K"] = all_of_them.units == allowance.total
        if not spends.any():
            raise PonderTTTError(
                f"the sequences of {self.arm.key} hold none that spends a budget of {self.budget.mean_cost:g}; enumerate them at the "
                "budgets of the grid"
            )
        return replace(
            all_of_them,
            sequences=stream.sequences[spends],
            losses=stream.losses[spends],
            nats=stream.nats[spends],
        )

    def _as_arm(
        self,
        name: str,
        known: Sequence[Sequence[Known]],
        weights: Sequence[Sequence[Float[np.ndarray, " K"]]],
    ) -> Arm:
        """Return the arm whose losses are means over sequences, by seed and stream."""
        measures: dict[str, list[Float[np.ndarray, " C"]]] = {"loss": [], "cost_nominal": []}
        for row, own in zip(known, weights, strict=True):
            measures["loss"].append(np.concatenate([w @ k.losses for k, w in zip(row, own, strict=True)]))
            measures["cost_nominal"].append(
                np.concatenate([w @ _NOMINAL[k.sequences] for k, w in zip(row, own, strict=True)])
            )
        return replace(
            self.arm,
            key=self.arm.key._replace(method=name),
            measures={measure: np.stack(rows) for measure, rows in measures.items()},
            cuts=None,
            look_aheads=(),
        )

    def _own(self, known: Sequence[Sequence[Known]]) -> list[list[int]] | None:
        """Return the rows of the arm's own sequences, by seed and stream; None if it took one that is not among them."""
        rows = []
        for row, actions in zip(known, self.arm.measures["action"], strict=True):
            parts = np.split(actions.astype(int), np.cumsum([k.sequences.shape[1] for k in row])[:-1])
            places = [k.place.get(tuple(part.tolist())) for k, part in zip(row, parts, strict=True)]
            found = [place for place in places if place is not None]
            if len(found) < len(places):
                return None
            rows.append(found)
        return rows

    def _swapped_p(self, known: Sequence[Sequence[Known]], own: Sequence[Sequence[int]]) -> float | None:
        """Return the p value of the policy's sequences against the same ones given to other streams of equal length."""
        groups = _equal_lengths(known[0])
        if all(len(group) < 2 for group in groups):
            return None
        generator = named_generator(0, "swaps", *self.arm.key)
        total, swapped = 0.0, np.zeros(PERMUTATIONS)
        for group in groups:
            # Loss of each stream under the sequence of each, summed over seeds.
            loss = np.sum(
                [
                    _under_each_other([row[s] for s in group], [rows[s] for s in group])
                    for row, rows in zip(known, own, strict=True)
                ],
                axis=0,
            )
            orders = generator.permuted(np.tile(np.arange(len(group)), (PERMUTATIONS, 1)), axis=1)
            total += float(np.trace(loss))
            swapped += loss[np.arange(len(group)), orders].sum(axis=1)
        # Rounding must not tell equal losses apart.
        return float((1 + np.sum(swapped <= total + 1e-9 * abs(total))) / (1 + PERMUTATIONS))


def _equal_lengths(row: Sequence[Known]) -> list[list[int]]:
    """Return the streams of each length."""
    groups: dict[int, list[int]] = {}
    for s, known in enumerate(row):
        groups.setdefault(known.sequences.shape[1], []).append(s)
    return list(groups.values())


def _best_elsewhere(row: Sequence[Known]) -> list[Float[np.ndarray, " K"]]:
    """Choose for each stream the sequence that is best on the others of its length; a lone stream has the mean of all."""
    weights = [np.full(len(known.nats), 1 / len(known.nats)) for known in row]
    for group in _equal_lengths(row):
        if len(group) > 1:
            total = sum(row[s].nats for s in group)
            for s in group:
                weights[s] = row[s].only(int((total - row[s].nats).argmin()))
    return weights


def _elsewhere(row: Sequence[Known], own: Sequence[int]) -> list[Float[np.ndarray, " K"]]:
    """Give each stream the mean of the sequences of the others of its length; a lone stream keeps its own."""
    weights = [known.only(place) for known, place in zip(row, own, strict=True)]
    for group in _equal_lengths(row):
        if len(group) > 1:
            taken = {s: tuple(row[s].sequences[own[s]].tolist()) for s in group}
            for s in group:
                others = [row[s].place[taken[other]] for other in group if other != s]
                weights[s] = np.bincount(others, minlength=len(row[s].nats)) / len(others)
    return weights


def _under_each_other(known: Sequence[Known], own: Sequence[int]) -> Float[np.ndarray, "S S"]:
    """Return the loss of each stream under the sequence of each stream, nats."""
    taken = [tuple(k.sequences[place].tolist()) for k, place in zip(known, own, strict=True)]
    return np.array([[k.nats[k.place[sequence]] for sequence in taken] for k in known])


def _at_constant_rank(allowance: Allowance) -> tuple[int, ...]:
    """Return what the mechanism of budgets does at :data:`CONSTANT_RANK` after every chunk."""
    actions: list[int] = []
    for t in range(allowance.chunks - 1):
        ways = allowance.ways_of(allowance.spent(actions), t)
        cuts = np.cumsum(ways)[:-1] / ways.sum()
        actions.append(int(np.sum(cuts <= CONSTANT_RANK)))
    return (*actions, int(Action.SKIP))
