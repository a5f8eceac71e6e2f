"""Run commands in this process, in a folder with a random model and some files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ponderttt.cli import main as cli
from study import CONFIG, write_model

Result = tuple[int, str, str]
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command; gives (status, standard output, standard error)."""

    def command(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["ponderttt", *map(str, arguments)])
        status = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return (status, *capfd.readouterr())

    return command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with a random model, a file and a repository."""
    folder = tmp_path_factory.mktemp("place")
    write_model(folder / "model")
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "repository").mkdir()
    for name in ("a.py", "b.py"):
        (folder / "repository" / name).write_text("import os\n\nVALUE = 3\n" * 8)
    (folder / "prompt.py").write_text("def add(a, b):\n    return a + b\n" * 5)
    (folder / "empty.py").write_text("")
    (folder / "bytes.py").write_bytes(b"\xff\xfe\x00")
    return folder


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place, as the working folder."""
    monkeypatch.chdir(place)
    return place
