"""A user's own folder or checkout: deterministic, without ignored files, and never outside it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ponderttt.corpus.folders import git_commit, read_folder, subfolders
from ponderttt.errors import PonderTTTError


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def make_files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"# " + os.fsencode(name) + b"\n")


def commit_all(folder: Path) -> None:
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    make_files(folder, "src/b.py", "src/a.py", "src/build/made.py", "build/made.py", "gone.py")
    (folder / ".gitignore").write_text("build/\n")
    commit_all(folder)
    (folder / "gone.py").unlink()
    (folder / "src" / "new.py").write_text("# not yet added\n")
    return folder


def names(folder: Path) -> list[str]:
    return [raw.path for raw in read_folder(folder)]


def test_a_checkout_gives_what_git_tracks_or_would_add(checkout: Path) -> None:
    assert names(checkout) == [".gitignore", "src/a.py", "src/b.py", "src/new.py"]
    assert git_commit(checkout) and len(str(git_commit(checkout))) == 40


def test_a_plain_folder_gives_all_but_hidden_folders_and_caches(tmp_path: Path) -> None:
    make_files(tmp_path, "b.py", "a/z.py", "a/b/c.py", ".hidden/x.py", "__pycache__/x.pyc", "venv/lib/y.py")
    assert names(tmp_path) == ["a/b/c.py", "a/z.py", "b.py"]
    assert git_commit(tmp_path) is None


def refusal(folder: Path) -> str:
    with pytest.raises(PonderTTTError) as caught:
        names(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_subfolder_of_a_checkout_is_read_as_part_of_it(checkout: Path) -> None:
    assert names(checkout / "src") == ["a.py", "b.py", "new.py"]
    assert git_commit(checkout / "src") == git_commit(checkout)
    assert [path.name for path in subfolders(checkout)] == ["src"]


def test_an_ignored_folder_is_read_when_it_is_named(checkout: Path) -> None:
    assert names(checkout / "build") == names(checkout / "src" / "build") == ["made.py"]
    assert git_commit(checkout / "build") is None


def test_a_checkout_inside_a_plain_folder_is_read_as_a_checkout(tmp_path: Path, checkout: Path) -> None:
    make_files(tmp_path, "loose.py", "plain/build/x.py")
    found = ["loose.py", "plain/build/x.py", "project/.gitignore"]
    assert names(tmp_path) == [*found, *(f"project/src/{name}.py" for name in ("a", "b", "new"))]


def test_variables_that_git_sets_for_its_hooks_do_not_count(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_files(tmp_path / "other", "x.py")
    commit_all(tmp_path / "other")
    expected = names(checkout), git_commit(checkout)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nowhere"))
    assert (names(checkout), git_commit(checkout)) == expected


def test_submodules_and_inner_repositories_are_read_without_what_they_ignore(tmp_path: Path) -> None:
    for folder in (tmp_path / "module", tmp_path / "outer" / "inner"):
        make_files(folder, "x.py", "secret.py")
        (folder / ".gitignore").write_text("secret.py\n")
        commit_all(folder)
    outer = tmp_path / "outer"
    make_files(outer, "a.py")
    git(outer, "init", "-q")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", str(tmp_path / "module"), "mod")
    make_files(outer, "mod/secret.py")
    found = ["a.py", "inner/.gitignore", "inner/x.py", "mod/.gitignore", "mod/x.py"]
    assert names(outer) == [".gitmodules", *found]
    shutil.rmtree(outer / "mod")
    (outer / "mod").mkdir()  # a submodule that is not checked out
    assert names(outer) == [".gitmodules", *found[:3]]


def test_a_checkout_that_git_does_not_read_is_an_error(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise ignored files would be read."""
    worktree = tmp_path / "worktree"
    git(checkout, "worktree", "add", "-q", str(worktree))
    assert names(worktree / "src") == ["a.py", "b.py"]
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        for folder in (checkout, checkout / "src", tmp_path):
            assert (
                "git cannot say which files of this checkout are ignored (git is not installed)"
                in refusal(folder)
            )
        assert names(make_plain(tmp_path / "plain")) == ["x.py"]
    checkout.rename(tmp_path / "moved")
    for folder in (worktree, worktree / "src"):
        assert "(not a git repository: " in refusal(folder)
    if os.geteuid() == 0:
        shutil.chown(tmp_path / "moved", 12345)
        shutil.chown(tmp_path / "moved" / ".git", 12345)
        assert "detected dubious ownership" in refusal(tmp_path / "moved")


def make_plain(folder: Path) -> Path:
    make_files(folder, "x.py")
    return folder


def test_links_do_not_lead_out_of_the_folder(tmp_path: Path, checkout: Path) -> None:
    outside = tmp_path / "outside"
    make_files(outside, "secret.py")
    for folder in (checkout, tmp_path / "plain"):
        folder.mkdir(exist_ok=True)
        (folder / "link.py").symlink_to(outside / "secret.py")
        (folder / "linked").symlink_to(outside)
        (folder / "broken_link.py").symlink_to(outside / "nowhere")
        assert not [name for name in names(folder) if "link" in name]
    # A tracked file whose folder is now a link, a broken link, a loop, or a file.
    git(checkout, "add", "src")
    (checkout / "src").rename(outside / "src")
    for target in (outside / "src", outside / "nowhere", checkout / "src"):
        (checkout / "src").symlink_to(target)
        assert not [name for name in names(checkout) if name.startswith("src")]
        (checkout / "src").unlink()
    (checkout / "src").write_text("x")
    assert [name for name in names(checkout) if name.startswith("src")] == ["src"]


def test_a_link_that_is_named_is_followed(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "linked").symlink_to(checkout)
    assert names(tmp_path / "linked") == names(checkout)
    (tmp_path / "other.py").symlink_to(checkout / "src" / "a.py")
    assert [(raw.path, raw.content) for raw in read_folder(tmp_path / "other.py")] == [
        ("other.py", b"# src/a.py\n")
    ]
    (tmp_path / "broken.py").symlink_to("gone.py")
    assert refusal(tmp_path / "broken.py").endswith("broken.py: a broken link; gone.py does not exist")
    (tmp_path / "loop.py").symlink_to("loop.py")
    assert "loop.py: cannot be read" in refusal(tmp_path / "loop.py")


@pytest.mark.parametrize("in_checkout", [False, True])
def test_names_that_are_not_utf8_are_escaped(tmp_path: Path, in_checkout: bool) -> None:
    folder = tmp_path / os.fsdecode(b"bad\xff")
    make_files(folder, os.fsdecode(b"caf\xe9.py"), "gr\u00fcn.py")
    if in_checkout:
        commit_all(folder)
    assert [(raw.path, raw.size > 0) for raw in read_folder(folder)] == [
        (r"caf\xe9.py", True),
        ("gr\u00fcn.py", True),
    ]


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


def test_what_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the errors are simulated."""
    assert refusal(tmp_path / "nowhere").endswith("nowhere: no such file or folder")
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").endswith("pipe: neither a file nor a folder")
    plain = make_plain(tmp_path / "plain")
    make_files(plain, "closed/y.py")
    scan, read = os.scandir, Path.read_bytes

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    def read_bytes(path: Path) -> bytes:
        if path.name == "x.py":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        assert refusal(plain) == f"{plain / 'closed'}: cannot be read (Permission denied)"
        assert refusal(plain / "closed") == f"{plain / 'closed'}: cannot be read (Permission denied)"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_bytes)
        assert refusal(plain) == f"{plain / 'x.py'}: cannot be read (Permission denied)"
    # Git itself only warns.
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    warning = "echo \"warning: could not open directory 'closed/': Permission denied\" >&2"
    fake.write_text(f'#!/bin/sh\n{warning}\nexec {shutil.which("git")} "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    assert "could not open directory 'closed/': Permission denied" in refusal(checkout)
