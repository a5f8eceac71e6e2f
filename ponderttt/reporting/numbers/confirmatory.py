"""``confirmatory.csv``: the comparisons that the configuration declares, with p values corrected for their number."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ponderttt.reporting.numbers.arms import Arm
from ponderttt.reporting.numbers.comparisons import difference, find
from ponderttt.reporting.numbers.rows import ConfirmatoryRow
from ponderttt.reporting.numbers.sampling import StreamSampling
from ponderttt.reporting.numbers.significance import holm
from ponderttt.settings.confirmatory import Comparison


def declared_of(arm: Arm, declared: Sequence[Comparison], controls: Collection[str]) -> list[Comparison]:
    """Return the declared comparisons of an arm; on a control corpus it has none."""
    own = (arm.key.fast_weights, arm.key.method)
    return [] if arm.key.corpus in controls else [one for one in declared if one.arm == own]


def confirmatory_rows(
    arms: Sequence[Arm],
    declared: Sequence[Comparison],
    samplings: Mapping[tuple[str, int], StreamSampling],
    controls: Collection[str],
) -> list[ConfirmatoryRow]:
    """Return a row for each declared comparison, backbone and held-out corpus; the p values of all rows are one family.

    Args:
        arms: all arms of the table.
        declared: the comparisons of the configuration.
        samplings: (corpus, number of streams) → the sampling of the table.
        controls: control corpora, which have no part in the family.
    """
    rows = [
        row
        for arm in arms
        for comparison in declared_of(arm, declared, controls)
        if (row := _row(arm, arms, comparison, samplings[arm.key.corpus, len(arm.chunks.streams)]))
    ]
    return [replace(row, p_holm=p) for row, p in zip(rows, holm([row.p_holm for row in rows]), strict=True)]


def _row(
    arm: Arm, arms: Sequence[Arm], comparison: Comparison, sampling: StreamSampling
) -> ConfirmatoryRow | None:
    """Return the row of a comparison with its own p; None for one stream, or if the table lacks runs of one of the arms."""
    reference = find(arms, arm, *comparison.reference)
    found = difference(arm, reference, sampling) if reference else None
    if reference is None or found is None or found.delta.p is None:
        return None
    return ConfirmatoryRow(
        model=arm.key.model,
        corpus=arm.key.corpus,
        fast_weights=arm.key.fast_weights,
        method=arm.key.method,
        reference_fast_weights=reference.key.fast_weights,
        reference_method=reference.key.method,
        n_seeds=len(found.by_seed),
        n_streams=len(arm.chunks.streams),
        difference=found.delta,
        p_holm=found.delta.p,
    )
