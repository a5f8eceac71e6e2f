"""``make table`` and ``make smoke``: run the workflow, make the report if the table is newer, print where results are."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

from ponderttt.corpus.hub.rows import AGREEMENT
from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import check_writable
from ponderttt.files.commands import DEFAULT_CONFIG, program, study_options, workflow_command
from ponderttt.settings.experiment import Experiment, load
from ponderttt.workflow.layout import figure_names
from ponderttt.workflow.plans.needs import Needs
from ponderttt.workflow.progress import in_words


def make(config_path: str) -> int:
    """Run the study of a configuration file and return the status for the shell.

    Raises:
        PonderTTTError: the configuration is missing or bad, or Snakemake's own cache cannot be written.
    """
    from snakemake.common import get_appdirs

    experiment = load(config_path)
    check_writable(get_appdirs().user_cache_dir, "XDG_CACHE_HOME")
    _remind_of_terms(experiment)
    results = Path(experiment.results_dir)
    command = [sys.executable, "-m", "snakemake"]
    # The workflow reads the default file without being told, and then names no file in its messages.
    configured = [] if config_path == DEFAULT_CONFIG else ["--configfile", config_path]
    option = f" --config {shlex.quote(config_path)}" if configured else ""
    begin = time.monotonic()
    status = _run([*command, *configured])
    if status:
        if status != 130:
            print(
                f"\nThe study is not complete. See what is missing: {program('ponderttt')} status{option}\n"
                f"Continue: {workflow_command(options=study_options([config_path]))}",
                file=sys.stderr,
            )
        return status
    table, report = results / "paper_table.csv", results / "report.html"
    if not report.exists() or report.stat().st_mtime < table.stat().st_mtime:
        print("making the report", file=sys.stderr)
        status = _run([*command, "--report", str(report), *configured], quiet=True)
        if status:
            return status
    places = {
        "table": table,
        "how to read it": results / "README.md",
        "figures": ", ".join(
            str(results / "figures" / f"{n}.svg") for n in figure_names(experiment.grid.methods)
        ),
        "report": report,
        "your own code": f"{program('ponderttt')} score PATH{option}",
    }
    print(f"\nDone in {in_words(time.monotonic() - begin)}.")
    for name, place in places.items():
        print(f"  {name + ':':<16}{place}")
    return 0


def _remind_of_terms(experiment: Experiment) -> None:
    """Print the terms of a bulk download again before it begins."""
    kinds = {experiment.corpora[name].kind for name in Needs(experiment).corpora_of_files()}
    if "stack_v2" in kinds:
        print(AGREEMENT, file=sys.stderr)


def _run(command: list[str], quiet: bool = False) -> int:
    """Run a command that shares the terminal; an interrupt reaches both processes, so wait for it to end."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        encoding="utf-8",
        errors="replace",
    )
    try:
        output, _ = process.communicate()
    except KeyboardInterrupt:
        process.wait()
        print("\ninterrupted; run the same command again to continue", file=sys.stderr)
        return 130
    if quiet and process.returncode:
        print(output, file=sys.stderr)
    return process.returncode


def main() -> None:
    """``python -m ponderttt.workflow.make [CONFIG]``, from the root of the checkout."""
    try:
        sys.exit(make(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_CONFIG))
    except PonderTTTError as error:
        print(f"ponderttt: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
