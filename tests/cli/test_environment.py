"""Variables of JAX change no number, and folders that cannot be written end in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ponderttt.workflow.devices import IGNORED, ignore_variables
from study import CONFIG

SCORE = ("score", "prompt.py", "--fast-weights", "lora")


def ponderttt(place: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, with more of the environment in ``options["env"]``."""
    program = [sys.executable, "-c", "from ponderttt.cli.main import main; main()", *arguments]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **options.pop("env", {})}
    streams = {"stdout": subprocess.PIPE, **options}
    return subprocess.run(program, cwd=place, env=environment, stderr=subprocess.PIPE, text=True, **streams)


def losses(table: str) -> list[list[str]]:
    """The losses of a table of chunks."""
    return [line.split()[:4] for line in table.splitlines()]


def test_variables_of_jax_that_change_numbers_are_ignored(place: Path) -> None:
    plain = ponderttt(place, *SCORE)
    assert plain.returncode == 0
    variables = {"JAX_ENABLE_X64": "1", "JAX_DEBUG_NANS": "1", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    ran = ponderttt(place, *SCORE, env=variables)
    assert losses(ran.stdout) == losses(plain.stdout)
    for name, value in variables.items():
        assert f"ponderttt: {name}={value} is ignored" in ran.stderr


def test_only_what_is_listed_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*IGNORED, "JAX_PLATFORMS", "JAX_LOG_COMPILES"):
        monkeypatch.setenv(name, "0")
    assert len(ignore_variables()) == len(IGNORED)
    assert not set(IGNORED) & set(os.environ)
    assert {"JAX_PLATFORMS", "JAX_LOG_COMPILES"} <= set(os.environ)
    assert ignore_variables() == []


def test_a_platform_that_is_not_here_is_named(place: Path) -> None:
    ran = ponderttt(place, *SCORE, env={"JAX_PLATFORMS": "nowhere"})
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("ponderttt: JAX_PLATFORMS=nowhere: JAX cannot use this platform here (")
    assert ran.stderr.endswith("unset JAX_PLATFORMS or set it to cpu\n") and ran.stderr.count("\n") == 1


def test_a_data_folder_that_cannot_be_written_is_named_with_its_key(place: Path) -> None:
    (place / "a file").write_text("")
    (place / "link").symlink_to("/nowhere/x")
    for folder, reason in (
        ("a file", "a file, not a folder"),
        ("link", "a link to a folder that is missing"),
    ):
        (place / "other.yaml").write_text(yaml.safe_dump({**CONFIG, "data_dir": folder}))
        ran = ponderttt(place, *SCORE, "--config", "other.yaml")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr == f"ponderttt: {folder}: {reason}; set data_dir to a folder that can be written\n"
