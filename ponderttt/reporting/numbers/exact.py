"""Exact references of a policy, looked up in the losses of all sequences of actions.

All spend what the policy spends on a stream, to the unit:

| reference | actions |
|---|---|
| ``random`` | the mean over all sequences: the expectation of random decisions, without a draw |
| ``constant_rank`` | what the mechanism of budgets makes of rank 0.5 at every chunk, without any signal |
| ``best_schedule`` | the one sequence that is best on the *other* streams of the same length |
| ``own_elsewhere`` | the policy's own sequences on other streams of the same length, mean over these |
| ``oracle`` | the best sequence of each stream, chosen with its losses in sight: no policy is better |

Under a budget over the corpus, ``random`` is the mean at the budget's price, ``oracle`` has the best sequences at one price
that spend at most the budget, and ``constant_rank`` and ``best_schedule`` are left out; all sequences must be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ponderttt.reporting.numbers.arms import Arm
from ponderttt.reporting.numbers.corpus_lookup import CorpusLookup
from ponderttt.reporting.numbers.lookups import Lookup, Reference
from ponderttt.reporting.numbers.run_records import Budget
from ponderttt.reporting.numbers.sequences import AllSequences, sequences_of


def expected(arm: Arm, sets: Sequence[AllSequences]) -> Arm:
    """Return an arm of random decisions with the exact mean of its losses; any other arm, or one without, as it is."""
    if arm.name.base != "random" or arm.budget is None:
        return arm
    found = sequences_of(arm, sets)
    if found is None or found.unit != arm.budget.unit:
        return arm
    mean = exact_references(arm, found, arm.budget).get("random")
    if mean is None:
        return arm
    return replace(arm, measures={**arm.measures, "loss": mean.arm.measures["loss"]})


def exact_references(arm: Arm, found: AllSequences, budget: Budget) -> dict[str, Reference]:
    """Return the references of an arm at a budget, by name.

    ``own_elsewhere`` needs an arm that spends the budget.  Where a beam found only some sequences, there is the oracle alone.

    Args:
        arm: a policy, or a fixed schedule that is compared with policies of the budget.
        found: losses of all sequences of its adapter.
        budget: what policies spend, in the unit of ``found``.

    Raises:
        CorruptFileError: the losses are of another trained adapter, or of other streams than the arm scored.
    """
    kind = CorpusLookup if budget.over == "corpus" else Lookup
    return kind(arm, found, budget).references()
