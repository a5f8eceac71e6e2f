"""Read the files of a folder or git checkout, in path order, without following links."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from ponderttt.corpus.archives import RawFile
from ponderttt.errors import PonderTTTError

# Never source of the repository itself: version control, environments and caches of tools.
_SKIPPED_FOLDERS = frozenset({"__pycache__", "venv"})


def _everything(path: str) -> bool:
    return True


def read_folder(
    folder: Path | str, wanted: Callable[[str], bool] = _everything, max_file_bytes: int = 1 << 20
) -> Iterator[RawFile]:
    """The regular files under ``folder`` in path order; a path to one file gives that file.

    In a git checkout these are the files that git tracks or would offer to add, so that what ``.gitignore``
    names stays out.  Elsewhere hidden folders, ``__pycache__`` and ``venv`` are left out.  Links are left out.

    Args:
        folder: the folder; paths of the result are relative to it.
        wanted: whether the content of a path is to be read; others come with ``content=None``.
        max_file_bytes: larger files come with ``content=None`` and are never held in memory.

    Raises:
        PonderTTTError: the folder is missing, or a file in it cannot be read.
    """
    folder = Path(folder)
    if folder.is_file():
        names, folder = [folder.name], folder.parent
    elif folder.is_dir():
        tracked = _git_files(folder) if (folder / ".git").exists() else None
        names = _walk(folder) if tracked is None else tracked
    else:
        raise PonderTTTError(f"{folder}: no such file or folder")
    root = folder.resolve()
    for name in sorted(names):
        path = folder / name
        try:
            status = path.lstat()
            # A linked folder above the file would lead outside just as a linked file does.
            inside = path.parent.resolve() == root / Path(name).parent
            if not stat.S_ISREG(status.st_mode) or not inside:
                continue
            wants = status.st_size <= max_file_bytes and wanted(name)
            content = path.read_bytes() if wants else None
        except FileNotFoundError:
            continue  # git still tracks a file that was deleted from the checkout
        except OSError as error:
            raise PonderTTTError(f"{path}: cannot be read ({error.strerror})") from None
        yield RawFile(name, status.st_size if content is None else len(content), content)


def git_commit(folder: Path | str) -> str | None:
    """The commit that a checkout stands at; ``None`` for a folder that is not the top of one."""
    if not (Path(folder) / ".git").exists():
        return None
    done = _git(Path(folder), "rev-parse", "HEAD")
    return None if done is None else done.decode().strip()


def _walk(folder: Path) -> list[str]:
    names = []
    for top, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS]
        names += [(Path(top) / name).relative_to(folder).as_posix() for name in files]
    return names


def _git_files(folder: Path) -> list[str] | None:
    listed = _git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is None:
        return None
    # A file in a merge conflict is listed once per side.
    return sorted({os.fsdecode(name) for name in listed.split(b"\0") if name})


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Output of a git command that only reads; ``None`` where git is missing or refuses the folder."""
    # The checkout's own configuration may name a program to run as file-system monitor: never run it.
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
