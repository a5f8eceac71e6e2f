"""Exact references of policies: the section ``sequences``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ponderttt.names import FastWeightsName
from ponderttt.settings.mapping import settings
from ponderttt.settings.values import Count, Distinct

Adapter = Annotated[str, Field(examples=["memory", "memory+full"])]


@settings
class SequencesConfig:
    """Losses of every sequence of actions, from which exact references of policies follow."""

    fast_weights: Distinct[Adapter] = Field(
        default=(),
        description="Names in grid.fast_weights whose sequences are enumerated on the held-out corpora. A memory takes "
        "seconds; other kinds score a chunk for every start of a sequence that spends a budget of the grid.",
    )
    max_nodes: Count = Field(
        default=30_000,
        description="Largest number of chunks to score per stream: all sequences of a memory up to it, else those of a budget. "
        "A larger tree is searched with a beam.",
    )
    beam_width: Count = Field(
        default=4,
        description="Width of the first beam among starts that have spent the same. It is doubled until no better sequence is "
        "found.",
    )

    @property
    def all_fast_weights(self) -> tuple[FastWeightsName, ...]:
        """The names of ``fast_weights``, parsed."""
        return tuple(map(FastWeightsName.parse, self.fast_weights))
