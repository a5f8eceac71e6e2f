"""One finished study, shared by all tests of the workflow; a test that changes it puts it back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edits import Edit
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
def copied_study(finished_study: Study, tmp_path: Path) -> Study:
    """A copy of the finished study, to be damaged."""
    folder = tmp_path / "study"
    shutil.copytree(finished_study.folder, folder, symlinks=True)
    return Study(folder)


@pytest.fixture
def edited(finished_study: Study) -> Iterator[Edit]:
    """Appends to files of the study's checkout and takes it back."""
    edit = Edit(finished_study.folder)
    yield edit
    edit.undo()
