"""``ponderttt status``: which arms are missing or failed, and the command that runs what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ponderttt.errors import PonderTTTError
from ponderttt.files.commands import command_of
from ponderttt.files.manifest import MANIFEST, read_manifest
from ponderttt.records.record import KIND, RECORDS
from ponderttt.settings.experiment import Experiment, load
from ponderttt.workflow.digests import records_code
from ponderttt.workflow.layout import Layout, Run, grid_runs

State = Literal["finished", "missing", "failed", "outdated", "damaged"]


@dataclass(frozen=True)
class ArmStatus:
    """One arm and seed, what is known of it, and the file that its rule makes."""

    run: Run
    state: State
    detail: str
    target: str


def arm_status(run: Run, layout: Layout) -> ArmStatus:
    """Look at the records of one arm, and where there are none at the logs of the jobs that make them."""
    folder = Path(run.folder(layout))
    target = str(folder / RECORDS)
    if not (folder / MANIFEST).exists():
        failure = last_failure(run, layout)
        return ArmStatus(run, "failed" if failure else "missing", failure or "", target)
    try:
        facts = read_manifest(folder, KIND, "")["facts"]
    except PonderTTTError as error:
        return ArmStatus(run, "damaged", str(error).partition(" Rebuild it")[0], target)
    if facts.get("stage_digest") != records_code():
        return ArmStatus(run, "outdated", "made by another version of the code", target)
    return ArmStatus(run, "finished", "", target)


def last_failure(run: Run, layout: Layout) -> str | None:
    """The error with which the job of an arm, or a policy, calibration or training before it, ended; ``None`` if neither did."""
    results = Path(layout.results)
    logs = [results / "logs" / "plain" / run.corpus / run.model / f"{run.method}.log"]
    if run.fast_weights != "none":
        tail = Path(run.model) / run.fast_weights / f"seed-{run.seed}.log"
        logs = [results / "logs" / "arms" / run.corpus / tail, results / "logs" / "calibrate" / tail]
        policies = results / "logs" / "policy" / run.model / run.fast_weights
        logs += [*sorted(policies.glob(f"*/seed-{run.seed}.log")), results / "logs" / "train" / tail]
    for log in logs:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        found = next((line for line in reversed(lines) if line.startswith("ponderttt: ")), None)
        if found:
            return found.removeprefix("ponderttt: ")
    return None


def statuses(experiment: Experiment) -> list[ArmStatus]:
    """The state of every arm and seed of the grid, in the order of the grid."""
    layout = Layout.of(experiment)
    return [arm_status(run, layout) for run in grid_runs(experiment)]


def report(config_path: Path | str) -> str:
    """What is finished and what is not, as text that ends with the command to run.

    Raises:
        ConfigError: the configuration is missing or bad.
    """
    experiment = load(config_path)
    found = statuses(experiment)
    counts = Counter(arm.state for arm in found)
    lines = [f"{counts['finished']} of {len(found)} arms and seeds are finished in {experiment.results_dir}"]
    open_ones = [arm for arm in found if arm.state != "finished"]
    for arm in open_ones:
        run = arm.run
        name = f"{run.corpus} {run.model} {run.fast_weights}/{run.method} seed {run.seed}"
        lines.append(f"  {arm.state:<9} {name}{': ' + arm.detail if arm.detail else ''}")
    table = Path(experiment.results_dir) / "paper_table.csv"
    if open_ones:
        lines += ["", f"To run what is missing: {command_for(open_ones, config_path, table.exists())}"]
    elif not table.exists():
        lines += ["", f"The table is missing: {command_of(config_path)}"]
    else:
        lines += ["", f"The table is {table}."]
    return "\n".join(lines)


def command_for(arms: Sequence[ArmStatus], config_path: Path | str, table_exists: bool) -> str:
    """The command that makes the records of these arms and whatever follows from them.

    The workflow finds by itself what was never made.  It does not look for records once the table is newer, nor into
    any, so deleted and damaged ones are forced; one file of each job is enough, since a job writes all its methods.
    """
    command = command_of(config_path)
    jobs: dict[tuple[object, ...], str] = {}
    for arm in arms:
        run = arm.run
        if arm.state == "damaged" or (table_exists and arm.state in ("missing", "failed")):
            method = run.method if run.fast_weights == "none" else None
            jobs[run.corpus, run.model, run.fast_weights, method, run.seed] = arm.target
    return f"{command} --force {' '.join(jobs.values())} && {command}" if jobs else command
