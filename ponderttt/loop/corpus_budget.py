"""Budgets that all streams of a corpus share: one price of a unit of cost, and at most the budget in all.

Streams are read one after the other.  An action is taken at the price of the budget, whatever the stream, and only while
the corpus has enough left for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.loop.arm import Arm
from ponderttt.policies.budget import BudgetTables, held_over_corpus, stream_units
from ponderttt.records.step import Step


def chunks_per_decision(streams: Sequence[FrozenChunks]) -> float:
    """Return the chunks of a corpus per chunk that spends: the last chunk of a stream does not."""
    chunks = sum(len(stream.hidden) for stream in streams)
    return chunks / max(1, chunks - len(streams))


def share_budget(arm: Arm, streams: Sequence[FrozenChunks], steps: Sequence[Step]) -> None:
    """Give an arm what is left of the budget of a corpus after the steps so far; an arm without a budget stays as it is."""
    params: Any = arm.policy.params
    tables = params if isinstance(params, BudgetTables) else getattr(params, "tables", None)
    if tables is None:
        return
    decisions = sum(len(stream.hidden) - 1 for stream in streams)
    spent = np.asarray(tables.units)[[step.action for step in steps]].sum() if steps else 0
    arm.policy = held_over_corpus(arm.policy, int(stream_units(tables, decisions)) - int(spent))
