"""The losses of all sequences of actions, as the reporting reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ponderttt.errors import CorruptFileError
from ponderttt.files.commands import rebuild
from ponderttt.files.manifest import MANIFEST
from ponderttt.records.sequences import StreamLosses, read_sequences
from ponderttt.reporting.numbers.arms import Arm


@dataclass(frozen=True)
class AllSequences:
    """Losses of the sequences of one adapter on one corpus, for each seed.

    Attributes:
        adapter: corpus, model and fast weights.
        costs: costs of the four actions, in multiples of SKIP.
        unit: unit of the costs: ``nominal`` or ``flops``.
        streams: seed → stream → losses.
        module_digests: seed → sha256 of the slow weights.
    """

    adapter: tuple[str, str, str]
    costs: tuple[float, ...]
    unit: str
    streams: Mapping[int, Mapping[str, StreamLosses]]
    module_digests: Mapping[int, str]


def load_sequences(folders: Sequence[Path | str]) -> list[AllSequences]:
    """Read the losses of all sequences: folders ``results/sequences/{corpus}/{model}/{fast_weights}/seed-{seed}``.

    Raises:
        CorruptFileError: a file is damaged, or seeds of an adapter count costs in different ways.
    """
    found: dict[tuple[str, str, str], AllSequences] = {}
    for folder in map(Path, folders):
        again = rebuild(folder / MANIFEST)
        streams, facts = read_sequences(folder, again)
        adapter = (facts["corpus"], facts["model"], facts["fast_weights"])
        costs, unit = tuple(facts["costs"]), facts["unit"]
        mine = found.setdefault(adapter, AllSequences(adapter, costs, unit, {}, {}))
        if (mine.costs, mine.unit) != (costs, unit):
            raise CorruptFileError(
                f"{folder}: its costs differ from those of other seeds. Rebuild it: {again}"
            )
        seed = facts["seed"]
        found[adapter] = replace(
            mine,
            streams={**mine.streams, seed: {stream.stream_id: stream for stream in streams}},
            module_digests={**mine.module_digests, seed: facts["module_digest"]},
        )
    return list(found.values())


def sequences_of(arm: Arm, sets: Sequence[AllSequences]) -> AllSequences | None:
    """Return the losses that an arm's own can be looked up in; None if its adapter has none for every seed."""
    wanted = (arm.key.corpus, arm.key.model, arm.key.fast_weights)
    return next((s for s in sets if s.adapter == wanted and set(arm.seeds) <= set(s.streams)), None)
