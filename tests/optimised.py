"""Run tests that need XLA's optimisations in a process of their own, whatever else is selected.

XLA reads its flags once per process, so tests that compare bits of different programs cannot share a process with tests
that are compiled in a hurry.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

LEVEL = "--xla_backend_optimization_level"
#: Compile fast, run slow: most tests run each of their many small programs once.
HURRY = f"{LEVEL}=0 --xla_cpu_use_fusion_emitters=false"
#: XLA's default.
FULL = f"{LEVEL}=3"
#: Set in the process of optimised tests: the file that takes its reports, one JSON object per line.
REPORTS = "PONDERTTT_OPTIMISED_REPORTS"


def set_flags() -> None:
    """Compile in a hurry unless XLA_FLAGS sets the level; call before JAX has a backend."""
    flags = os.environ.get("XLA_FLAGS", "")
    if LEVEL not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {HURRY}".strip()


def optimised(item: pytest.Item) -> bool:
    """Return whether a test needs XLA's optimisations."""
    return item.get_closest_marker("optimised") is not None


class Separate:
    """In the parent: runs the optimised tests of a file in one child and passes its reports on."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.reports: dict[Path, dict[str, list[Any]]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Report what the child reported; None leaves other tests to pytest."""
        if not optimised(item):
            return None
        # The test before left set up what it shares with this one, which may be more than it shares with the next.
        item.session._setupstate.teardown_exact(nextitem)
        if item.path not in self.reports:
            tests = [other for other in item.session.items if other.path == item.path and optimised(other)]
            self.reports[item.path] = self._run([other.nodeid for other in tests])
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self.reports[item.path][item.nodeid]:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _run(self, tests: list[str]) -> dict[str, list[Any]]:
        """Reports of each test; a test without a full set of them failed with the child."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        environment["XLA_FLAGS"] = environment["XLA_FLAGS"].replace(HURRY, FULL)
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
            environment[REPORTS] = file.name
            command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", *tests]
            ran = subprocess.run(
                command, cwd=self.config.rootpath, env=environment, capture_output=True, text=True
            )
            lines = [json.loads(line) for line in file]
        reports: dict[str, list[Any]] = {test: [] for test in tests}
        for line in lines:
            report = self.config.hook.pytest_report_from_serializable(config=self.config, data=line)
            reports[report.nodeid].append(report)
        for test, phases in reports.items():
            if not phases or phases[-1].when != "teardown":
                text = f"the process of optimised tests ended with status {ran.returncode}\n{ran.stdout}{ran.stderr}"
                where = (test.split("::")[0], None, test)
                phases.append(pytest.TestReport(test, where, {}, "failed", text, "call"))
        return reports


class Reporter:
    """In the child: writes the reports for the parent."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Append one report."""
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        with Path(os.environ[REPORTS]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(data) + "\n")


def register(config: pytest.Config) -> None:
    """Register the half that this process needs; none where all tests are optimised."""
    if REPORTS in os.environ:
        config.pluginmanager.register(Reporter(config))
    elif HURRY in os.environ["XLA_FLAGS"]:
        config.pluginmanager.register(Separate(config))
