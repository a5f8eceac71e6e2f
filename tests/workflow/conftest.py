"""One finished study, shared by all tests of the workflow; a test that changes it puts it back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from study import Study


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that has run."""
    study = Study.create(tmp_path_factory.mktemp("study"))
    ran = study.run()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return study


@pytest.fixture
def study(finished_study: Study) -> Iterator[Study]:
    """The finished study, with its configuration put back afterwards."""
    yield finished_study
    finished_study.configure()


@pytest.fixture
def edited(finished_study: Study) -> Iterator[Edit]:
    """Appends to files of the study's checkout and takes it back."""
    edit = Edit(finished_study.folder)
    yield edit
    edit.undo()


class Edit:
    """Changes to files that can be undone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before: dict[Path, bytes] = {}

    def append(self, name: str, text: str) -> None:
        """Add text at the end of a file."""
        self.replace(name, (self._folder / name).read_bytes() + text.encode())

    def replace(self, name: str, content: bytes) -> None:
        """Give a file another content."""
        path = self._folder / name
        self._before.setdefault(path, path.read_bytes())
        path.write_bytes(content)

    def undo(self) -> None:
        """Give every file its content back."""
        for path, content in self._before.items():
            path.write_bytes(content)
