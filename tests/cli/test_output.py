"""A command whose output is closed, full or in a small encoding ends without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

START = "from ponderttt.cli import main as cli; cli.main()"


def run(stdout: object, program: str = START, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, "--help"],
        stdout=stdout,  # type: ignore[arg-type]
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, **variables},
    )


def test_a_reader_that_has_seen_enough_is_no_error_to_read_about() -> None:
    read, write = os.pipe()
    os.close(read)
    ended = run(write)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_full_device_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ended = run(full)
    assert ended.returncode == 1
    assert ended.stderr == "ponderttt: standard output: the device is full; write to another one\n"


def test_closed_output_is_no_error() -> None:
    ended = run(subprocess.DEVNULL, f"import os, sys; os.close(1); sys.stdout = None; {START}")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_characters_that_the_encoding_lacks_are_escaped() -> None:
    shown = "import click; from ponderttt.cli import main as cli; cli.commands = lambda **_: click.echo('→ \\udcff')"
    ended = run(subprocess.PIPE, f"{shown}; cli.main()", PYTHONIOENCODING="latin-1")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "\\u2192 \\udcff\n", "")
