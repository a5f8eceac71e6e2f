"""What a study's budgets leave to decide, before anything runs."""

from __future__ import annotations

from ponderttt.settings.experiment import Experiment


def budget_notes(experiment: Experiment) -> list[str]:
    """Return one line for each budget that leaves out an action.

    Budgets of nominal cost are checked, on corpora whose streams have a largest length; costs in counted FLOPs are known
    once an adapter runs, and are checked there.

    Raises:
        PonderTTTError: a budget leaves a single sequence of actions.
    """
    # Imports jax, which Snakemake's own processes do not need.
    from ponderttt.policies.budget import NOMINAL_COSTS
    from ponderttt.policies.sequences import check_room

    grid, notes = experiment.grid, []
    if grid.budget_unit != "nominal" or grid.budget_over != "stream":
        return []
    budgets = {method.budget or grid.budget for method in grid.all_methods if method.is_budgeted}
    for corpus in grid.eval_corpora:
        longest = experiment.corpora[corpus].chunks_per_stream
        for budget in sorted(budgets):
            note = None if longest is None else check_room(NOMINAL_COSTS, budget, longest)
            if note is not None:
                notes.append(f"{corpus}: {note}")
    return notes
