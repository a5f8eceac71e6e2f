"""The reason that a run has no records: the error at the end of a job's log."""

from __future__ import annotations

from pathlib import Path

from ponderttt.workflow.entry import INTERRUPTED, PREFIX
from ponderttt.workflow.layout import Layout, Run


def last_failure(run: Run, layout: Layout) -> str | None:
    """Return the error of the job of a run, or of a job that the run depends on; None if none failed.

    An interrupted job has not failed.
    """
    logs = Path(layout.results) / "logs"
    if run.fast_weights == "none":
        found = [logs / "plain" / run.corpus / run.model / f"{run.method}.log"]
    else:
        adapter, seed = Path(run.model) / run.fast_weights, f"seed-{run.seed}.log"
        policies = sorted((logs / "policy" / adapter).glob(f"*/{seed}"))
        found = [logs / "arms" / run.corpus / adapter / seed, logs / "calibrate" / adapter / seed]
        found += [*policies, logs / "train" / adapter / seed]
    for log in found:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        failure = next((line for line in reversed(lines) if line.startswith(PREFIX)), None)
        if failure and failure != f"{PREFIX}{INTERRUPTED}":
            return failure.removeprefix(PREFIX)
    return None
