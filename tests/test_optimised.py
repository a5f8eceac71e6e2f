"""Optimised tests get a process of their own, and report from there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from optimised import FULL, HURRY, LEVEL

CONFTEST = """
import optimised
optimised.set_flags()
pytest_configure = optimised.register
"""
TESTS = """
import os
import pytest

def test_usual():
    assert {hurry!r} in os.environ["XLA_FLAGS"]

@pytest.mark.optimised
def test_own_process():
    assert {full!r} in os.environ["XLA_FLAGS"] and {hurry!r} not in os.environ["XLA_FLAGS"]

@pytest.mark.optimised
def test_wrong():
    assert 1 == 2

@pytest.mark.optimised
def test_dies():
    os._exit(7)
"""


@pytest.fixture
def outcomes(tmp_path):
    """Run the tests above, with these XLA flags; gives what pytest printed."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_some.py").write_text(TESTS.format(hurry=HURRY, full=FULL))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = optimised")

    def run(flags: str, *arguments: str) -> str:
        environment = {
            **os.environ,
            "XLA_FLAGS": flags,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:jaxtyping", *arguments]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return ran.stdout + ran.stderr

    return run


def test_each_test_is_compiled_as_it_asks_and_its_outcome_arrives(outcomes):
    printed = outcomes("", "-rA")
    assert "PASSED test_some.py::test_usual" in printed
    assert "PASSED test_some.py::test_own_process" in printed
    assert "FAILED test_some.py::test_wrong - assert 1 == 2" in printed
    assert "FAILED test_some.py::test_dies" in printed
    assert "the process of optimised tests ended with status 7" in printed


def test_a_level_in_xla_flags_counts_for_all_tests(outcomes):
    printed = outcomes(f"{LEVEL}=3", "-rA", "-k", "usual or own")
    assert "FAILED test_some.py::test_usual" in printed
    assert "PASSED test_some.py::test_own_process" in printed
