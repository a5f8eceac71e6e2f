"""A run of the workflow: it locks the results folder and shows its progress."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TextIO

from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import check_writable
from ponderttt.files.locks import lock
from ponderttt.settings.experiment import Experiment
from ponderttt.workflow.plans.room import budget_notes
from ponderttt.workflow.progress import show

_held: list[TextIO] = []


def hold(results: Path | str) -> None:
    """Lock the results folder for this process, until it ends.

    Raises:
        PonderTTTError: another run of the workflow has it.
    """
    message = f"{results}: another run of the workflow is using this folder; wait for it to end, or set another results_dir"
    _held.append(lock(Path(results) / ".lock", message))


def start(workflow: Any, experiment: Experiment) -> None:
    """Start a run; the Snakefile calls this before the first job.

    ``data_dir`` may be a folder without write access if no job writes into it.
    """
    data, results = experiment.data_dir, experiment.results_dir
    written = [str(file) for job in workflow.dag.needrun_jobs() for file in job.output]
    try:
        if any(file.startswith(f"{data}/") for file in written):
            check_writable(data, "data_dir")
        check_writable(results, "results_dir")
        hold(results)
        for note in budget_notes(experiment):
            print(f"ponderttt: note: {note}", file=sys.stderr)
    except PonderTTTError as error:
        print(f"ponderttt: {error}", file=sys.stderr)
        sys.exit(1)
    show(workflow, experiment)
