"""``ponderttt status``: which runs are missing or failed, and the command that makes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ponderttt.errors import PonderTTTError
from ponderttt.files.commands import study_options, workflow_command
from ponderttt.files.manifest import read_manifest
from ponderttt.records.record import KIND, RECORDS
from ponderttt.settings.experiment import Experiment, load
from ponderttt.workflow import stamps
from ponderttt.workflow.digests import records_code
from ponderttt.workflow.failures import last_failure
from ponderttt.workflow.layout import Run, grid_runs
from ponderttt.workflow.plans.parameters import Plan

State = Literal["finished", "missing", "failed", "outdated", "damaged"]


@dataclass(frozen=True)
class RunStatus:
    """The state of one run.

    Attributes:
        run: the arm and seed.
        state: whether it is finished, or what is wrong.
        detail: the error or the reason; empty if there is none.
        target: the file of its records.
    """

    run: Run
    state: State
    detail: str
    target: str


def run_status(run: Run, plan: Plan) -> RunStatus:
    """Return the state of one run, from its records or, if there are none, from the logs of their jobs."""
    folder = run.folder(plan.layout)
    target = folder.file(RECORDS)
    if not folder.exists:
        failure = last_failure(run, plan.layout)
        return RunStatus(run, "failed" if failure else "missing", failure or "", target)
    try:
        facts = read_manifest(folder, KIND, "")["facts"]
    except PonderTTTError as error:
        return RunStatus(run, "damaged", str(error).partition(" Rebuild it")[0], target)
    if facts.get("stage_digest") != records_code():
        return RunStatus(run, "outdated", "made by another version of the code", target)
    problem = stamps.problem(folder, plan.run(run))
    if problem:
        return RunStatus(run, "outdated", problem, target)
    return RunStatus(run, "finished", "", target)


def statuses(experiment: Experiment) -> list[RunStatus]:
    """Return the state of every run of the grid, in the grid's order."""
    plan = Plan(experiment)
    return [run_status(run, plan) for run in grid_runs(experiment)]


def report(config_path: Path | str) -> str:
    """Return what is finished and what is not, as text that ends with the command to run.

    Raises:
        ConfigError: the configuration is missing or bad.
    """
    experiment = load(config_path)
    found = statuses(experiment)
    count = sum(status.state == "finished" for status in found)
    lines = [f"{experiment.results_dir}: {count} of {len(found)} runs are finished"]
    unfinished = [status for status in found if status.state != "finished"]
    for status in unfinished:
        run = status.run
        name = f"{run.corpus} {run.model} {run.fast_weights}/{run.method} seed {run.seed}"
        lines.append(f"  {status.state:<9} {name}{': ' + status.detail if status.detail else ''}")
    table, options = Path(experiment.results_dir) / "paper_table.csv", study_options([config_path])
    if unfinished:
        last = f"Run the rest: {command_for(unfinished, options, table.exists())}"
    elif not table.exists():
        last = f"The table is missing. Make it: {workflow_command(options=options)}"
    else:
        last = f"The table: {table}"
    return "\n".join([*lines, "", last])


def command_for(unfinished: Sequence[RunStatus], options: str, table_exists: bool) -> str:
    """Return the command that makes the records of these runs and all that follows from them.

    Snakemake finds by itself what was never made. It does not look for records once the table is newer, and never into
    any, so deleted and damaged ones are forced. One file of each job is enough, since a job writes all its methods.
    """
    jobs: dict[tuple[object, ...], str] = {}
    for status in unfinished:
        run = status.run
        if status.state == "damaged" or (table_exists and status.state in ("missing", "failed")):
            method = run.method if run.fast_weights == "none" else None
            jobs[run.corpus, run.model, run.fast_weights, method, run.seed] = status.target
    command = workflow_command(options=options)
    forced = workflow_command(*jobs.values(), force=True, options=options)
    return f"{forced} && {command}" if jobs else command
