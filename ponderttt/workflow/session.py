"""A run of the workflow: it holds the results folder, and shows what it does."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path
from typing import Any, TextIO

from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import check_writable
from ponderttt.workflow.progress import show

_held: list[TextIO] = []


def hold(results: Path | str) -> None:
    """Take the results folder for this process; the lock ends with the process, however it ends.

    Raises:
        PonderTTTError: another run of the workflow has it.
    """
    handle = (Path(results) / ".lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise PonderTTTError(
            f"{results}: another run of the workflow is using this folder; wait for it to end, or set another results_dir"
        ) from None
    _held.append(handle)


def start(workflow: Any, data: str, results: str) -> None:
    """Begin a run; the Snakefile calls it before the first job.

    Data that are all there may be in a folder that cannot be written.
    """
    written = [str(file) for job in workflow.dag.needrun_jobs() for file in job.output]
    try:
        if any(file.startswith(f"{data}/") for file in written):
            check_writable(data, "data_dir")
        check_writable(results, "results_dir")
        hold(results)
    except PonderTTTError as error:
        print(f"ponderttt: {error}", file=sys.stderr)
        sys.exit(1)
    show(workflow)
