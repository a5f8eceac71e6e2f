"""Read the files of a folder or git checkout, in path order, without following links."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ponderttt.corpus.raw_files import RawFile, every_path, utf8_name
from ponderttt.errors import PonderTTTError
from ponderttt.files.git import GitError, git

# Environments and caches of tools: never source of the repository itself.
_SKIPPED_FOLDERS = frozenset({"__pycache__", "venv"})


def read_folder(
    folder: Path | str, wanted: Callable[[str], bool] = every_path, max_file_bytes: int = 1 << 20
) -> Iterator[RawFile]:
    """Yield the regular files under ``folder`` in path order; a path to one file gives that file.

    In a git checkout, or a subfolder of one, these are the files that git tracks or would offer to add, also
    those of submodules and of repositories inside it: ignored files stay out.  A folder that the checkout
    ignores as a whole is read like one outside.  Outside of checkouts, hidden folders, ``__pycache__`` and
    ``venv`` stay out.  Links stay out, but ``folder`` itself may be one.

    Args:
        folder: the folder; paths of the result are relative to it.
        wanted: whether to read the content of a path; others come with ``content=None``.
        max_file_bytes: larger files come with ``content=None`` and are never held in memory.

    Raises:
        PonderTTTError: the folder is missing, a file or folder in it cannot be read, or git cannot say which
            files of a checkout are ignored.
    """
    folder = Path(folder)
    if is_file(folder):
        yield _read_file(folder, folder.name, folder.stat().st_size, wanted, max_file_bytes)
        return
    for name in sorted(_git_files(folder) if _git_decides(folder) else _walk(folder)):
        path = folder / name
        # A linked folder above the file would lead outside just as a linked file does.
        if any((folder / parent).is_symlink() for parent in Path(name).parents[:-1]):
            continue
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue  # git still tracks a file that was deleted from the checkout
        except OSError as error:
            raise _unreadable(path, error) from None
        if stat.S_ISREG(status.st_mode):
            yield _read_file(path, name, status.st_size, wanted, max_file_bytes)


def is_file(path: Path) -> bool:
    """Return whether a path that a user names is a file; otherwise it is a folder.

    Raises:
        PonderTTTError: it is missing, a broken link, something else, or in a folder that cannot be read.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise PonderTTTError(f"{path}: a broken link; {path.readlink()} does not exist") from None
        raise PonderTTTError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise PonderTTTError(f"{path}: neither a file nor a folder")
    return stat.S_ISREG(mode)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in ``folder``, by name, without those that :func:`read_folder` skips.

    Raises:
        PonderTTTError: the folder cannot be read, or git cannot say which of them are ignored.
    """
    try:
        inner = [
            path
            for path in sorted(folder.iterdir())
            if path.is_dir() and not path.is_symlink() and not _skipped(path.name)
        ]
    except OSError as error:
        raise _unreadable(folder, error) from None
    return [path for path in inner if not _ignored(path)]


def all_files(folder: Path) -> list[Path]:
    """Return all files under a folder, sorted; links to files count, links to folders are not followed.

    Raises:
        PonderTTTError: a folder cannot be read.
    """
    found = os.walk(folder, onerror=_refuse)
    return sorted(Path(top, name) for top, _, files in found for name in files)


def git_commit(folder: Path | str) -> str | None:
    """Return the commit of the checkout that ``folder`` belongs to; None outside, or before the first commit."""
    folder = Path(folder)
    if not folder.is_dir() or not _git_decides(folder):
        return None
    found = _ask_git(folder, "rev-parse", "--verify", "--quiet", "HEAD", statuses=(0, 1))
    return found.decode().strip() or None


def _refuse(error: OSError) -> None:
    raise _unreadable(error.filename, error) from None


def _unreadable(path: Path | str, error: OSError) -> PonderTTTError:
    return PonderTTTError(f"{path}: cannot be read ({error.strerror})")


def _read_file(
    path: Path, name: str, size: int, wanted: Callable[[str], bool], max_file_bytes: int
) -> RawFile:
    name = utf8_name(name)
    if size > max_file_bytes or not wanted(name):
        return RawFile(name, size, None)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    return RawFile(name, len(content), content)


def _skipped(folder_name: str) -> bool:
    return folder_name.startswith(".") or folder_name in _SKIPPED_FOLDERS


def _walk(folder: Path) -> list[str]:
    """List the files under a folder outside of checkouts; checkouts inside it are listed by git."""
    names = []
    for top, folders, files in os.walk(folder, onerror=_refuse):
        checkouts = [name for name in folders if _has_git(Path(top, name))]
        folders[:] = [name for name in folders if not _skipped(name) and name not in checkouts]
        below = Path(top).relative_to(folder)
        names += [(below / name).as_posix() for name in files]
        for name in checkouts:
            if not _skipped(name) and not Path(top, name).is_symlink():
                names += [(below / name / file).as_posix() for file in _git_files(Path(top, name))]
    return names


def _git_files(folder: Path) -> list[str]:
    """List what git tracks or would offer to add, with submodules and repositories inside the checkout."""
    listed = _ask_git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names: set[str] = set()
    # A file in a merge conflict is listed once per side.
    for name in {os.fsdecode(name).rstrip("/") for name in listed.split(b"\0") if name}:
        path = folder / name
        try:
            is_folder = stat.S_ISDIR(path.lstat().st_mode)
        except OSError:
            is_folder = False
        if not is_folder:
            names.add(name)
        elif _has_git(path):  # otherwise a submodule that is not checked out: an empty folder
            names.update(f"{name}/{inner}" for inner in _git_files(path))
    return sorted(names)


def _has_git(folder: Path) -> bool:
    return os.path.lexists(folder / ".git")


def _checkout(folder: Path) -> Path | None:
    """The nearest folder, at or above ``folder``, that has a ``.git``."""
    top = folder.resolve()
    return next((path for path in (top, *top.parents) if _has_git(path)), None)


def _git_decides(folder: Path) -> bool:
    """Whether git says which files of a folder are its source."""
    return _has_git(folder) or (_checkout(folder) is not None and not _ignored(folder))


def _ignored(folder: Path) -> bool:
    """Whether a checkout around a folder ignores all of it."""
    folder = folder.resolve()
    if _checkout(folder.parent) is None:
        return False
    return bool(_ask_git(folder.parent, "check-ignore", "--", folder.name, statuses=(0, 1)))


def _ask_git(folder: Path, *arguments: str, statuses: tuple[int, ...] = (0,)) -> bytes:
    try:
        return git(folder, *arguments, statuses=statuses)
    except GitError as error:
        raise PonderTTTError(
            f"{_checkout(folder)}: git cannot say which files of this checkout are ignored ({error}). "
            "Fix this, or read a copy outside the checkout."
        ) from None
