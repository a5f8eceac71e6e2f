"""A user's own folder or checkout: deterministic, without what git ignores, and never outside of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ponderttt.corpus.folders import git_commit, read_folder
from ponderttt.errors import PonderTTTError


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in ("src/b.py", "src/a.py", "build/made.py", "gone.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    (folder / ".gitignore").write_text("build/\n")
    git(tmp_path, "init", "-q", "project")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    (folder / "gone.py").unlink()
    (folder / "src" / "new.py").write_text("# not yet added\n")
    return folder


def names(folder: Path) -> list[str]:
    return [raw.path for raw in read_folder(folder)]


def test_a_checkout_gives_what_git_tracks_or_would_add(checkout: Path) -> None:
    assert names(checkout) == [".gitignore", "src/a.py", "src/b.py", "src/new.py"]
    assert git_commit(checkout) and len(str(git_commit(checkout))) == 40


def test_a_plain_folder_gives_all_but_hidden_folders_and_caches(tmp_path: Path) -> None:
    for name in ("b.py", "a/z.py", "a/b/c.py", ".hidden/x.py", "__pycache__/x.pyc", "venv/lib/y.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert names(tmp_path) == ["a/b/c.py", "a/z.py", "b.py"]
    assert git_commit(tmp_path) is None


def test_links_do_not_lead_out_of_the_folder(tmp_path: Path, checkout: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text("secret")
    for folder in (checkout, tmp_path / "plain"):
        folder.mkdir(exist_ok=True)
        (folder / "link.py").symlink_to(outside / "secret.py")
        (folder / "linked").symlink_to(outside)
        assert not [name for name in names(folder) if "link" in name]
    # A tracked file whose folder was replaced by a link afterwards.
    git(checkout, "add", "src")
    for path in (checkout / "src").iterdir():
        path.rename(outside / path.name)
    (checkout / "src").rmdir()
    (checkout / "src").symlink_to(outside)
    assert not [name for name in names(checkout) if name.startswith("src/")]


def test_a_checkout_cannot_make_the_reader_run_a_program(checkout: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    git(checkout, "config", "core.fsmonitor", str(trap))
    names(checkout)
    assert not (tmp_path / "sprung").exists()


def test_a_single_file_is_read_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("x = 1\n")
    assert [(raw.path, raw.content) for raw in read_folder(tmp_path / "one.py")] == [("one.py", b"x = 1\n")]


def test_large_and_unwanted_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_bytes(b"x" * 11)
    (tmp_path / "image.png").write_bytes(b"x")
    found = list(read_folder(tmp_path, lambda name: name.endswith(".py"), max_file_bytes=10))
    assert [(raw.path, raw.size, raw.content) for raw in found] == [
        ("big.py", 11, None),
        ("image.png", 1, None),
    ]


def test_a_missing_folder_or_an_unreadable_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(PonderTTTError, match="nowhere: no such file or folder"):
        list(read_folder(tmp_path / "nowhere"))
    (tmp_path / "locked.py").write_text("x")
    (tmp_path / "locked.py").chmod(0)
    if os.access(tmp_path / "locked.py", os.R_OK):  # root reads everything
        assert len(list(read_folder(tmp_path))) == 1
    else:
        with pytest.raises(PonderTTTError, match="cannot be read"):
            list(read_folder(tmp_path))
