"""A folder says what it was made from, and is refused once that no longer holds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ponderttt.errors import CorruptFileError
from ponderttt.files.folder import Folder
from ponderttt.files.manifest import write_manifest
from ponderttt.workflow import stamps

SETTINGS = {"chunk_size": 64, "corpus": {"path": "sources", "filters": [1, 2]}}


def write(folder: Path, content: str) -> Folder:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text(content)
    write_manifest(folder, "test", {"file": None})
    return Folder(folder)


@pytest.fixture
def chunks(tmp_path: Path) -> Folder:
    """Chunks that were made from shards and stamped."""
    shards, folder = write(tmp_path / "data/shards", "a"), write(tmp_path / "data/chunks", "b")
    stamps.write_stamp(folder, stamps.made_from("chunks", "c0de", SETTINGS, [shards], folder))
    return folder


def test_a_folder_whose_stamp_holds_has_no_problem(chunks: Folder) -> None:
    assert stamps.problem(chunks, SETTINGS, "c0de") is None
    stamps.check(chunks, SETTINGS)


def test_other_settings_are_named(chunks: Folder) -> None:
    other = {"chunk_size": 32, "corpus": {"path": "elsewhere", "filters": [1, 2]}}
    assert stamps.problem(chunks, other) == (
        'made with other settings (chunk_size 64, now 32, corpus.path "sources", now "elsewhere")'
    )
    with pytest.raises(CorruptFileError) as error:
        stamps.check(chunks, other)
    assert str(error.value).startswith(f"{chunks}: made with other settings (chunk_size 64, now 32")
    assert str(error.value).endswith(f"--force {chunks.manifest}")


def test_tuples_and_lists_are_the_same_settings(chunks: Folder) -> None:
    assert stamps.problem(chunks, {**SETTINGS, "corpus": {"path": "sources", "filters": (1, 2)}}) is None


def test_another_version_of_the_code_is_said(chunks: Folder) -> None:
    assert stamps.problem(chunks, SETTINGS, "other") == "made by another version of the code"


def test_an_input_that_changed_is_named(chunks: Folder) -> None:
    shards = write(chunks.path.parent / "shards", "other files")
    assert stamps.problem(chunks, SETTINGS) == f"made from another {shards}"
    with pytest.raises(CorruptFileError, match="made from another"):
        stamps.check(chunks)


def test_the_same_input_may_be_rebuilt_or_deleted(chunks: Folder) -> None:
    shards = write(chunks.path.parent / "shards", "a")
    assert stamps.problem(chunks, SETTINGS) is None
    shutil.rmtree(shards)
    assert stamps.problem(chunks, SETTINGS) is None


def test_data_may_move_and_be_spelled_in_any_way(
    chunks: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    for spelling in ("moved/chunks", "./moved/chunks", "moved/../moved/chunks", f"{tmp_path}/moved/chunks"):
        assert stamps.problem(Folder(spelling), SETTINGS, "c0de") is None
    write(tmp_path / "moved/shards", "other files")
    for spelling in ("moved/chunks", f"{tmp_path}/moved/chunks"):
        assert "made from another" in str(stamps.problem(Folder(spelling), SETTINGS, "c0de"))


def test_a_folder_without_a_stamp_is_not_trusted(tmp_path: Path) -> None:
    folder = write(tmp_path / "chunks", "b")
    assert stamps.problem(folder, SETTINGS) == "its manifest does not say what it was made from"
    Path(folder.manifest).unlink()
    with pytest.raises(CorruptFileError, match="never finished"):
        stamps.check(folder)
