"""Write files atomically, and compute digests."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ponderttt.errors import PonderTTTError

#: A quota and a limit on the size of a file count as a full disk.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256_file(path: Path | str) -> str:
    """Return the sha256 of a file's bytes, as hex."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the sha256 of a value that JSON can hold, as hex, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def disk_is_full(error: Exception) -> bool:
    """Return whether writing failed for lack of space; compiled libraries say so only in the message."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(os.strerror(code) in str(error) for code in _FULL[:2])


@contextlib.contextmanager
def full_disk_named(target: Path | str, kept: str = "nothing was written") -> Iterator[None]:
    """Turn the error of a full disk into one line that names what was being written; ``kept`` says what is left.

    Raises:
        PonderTTTError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        # A full disk inside of another block of this kind: the outer one names what the user knows.
        cause = error.__cause__ if isinstance(error, PonderTTTError) else error
        if isinstance(cause, Exception) and disk_is_full(cause):
            raise PonderTTTError(
                f"{target}: the disk is full; {kept}. Free some space and run the same command again."
            ) from cause
        raise


def check_folder(folder: Path | str, key: str) -> None:
    """Check that a folder of the configuration is a folder, or can become one; make nothing.

    Raises:
        PonderTTTError: it or a folder above it is a file, or a link to nothing.
    """
    for path in (Path(folder), *Path(folder).parents):
        if path.is_dir():
            return
        if path.is_symlink() or path.exists():
            reason = "a file, not a folder" if path.exists() else "a link to a folder that is missing"
            raise PonderTTTError(f"{path}: {reason}; set {key} to a folder that can be written")


def check_writable(folder: Path | str, key: str) -> None:
    """Make a folder of the configuration if it is missing, and check that files can be written in it.

    Raises:
        PonderTTTError: they cannot; the message names the folder, the configuration key and the reason.
    """
    path, reason = Path(folder), None
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return
    except FileExistsError:
        reason = "a link to a folder that is missing" if path.is_symlink() else "a file, not a folder"
    except OSError as error:
        if disk_is_full(error):
            return
        reason = f"cannot be written ({(error.strerror or str(error)).lower()})"
    raise PonderTTTError(f"{folder}: {reason}; set {key} to a folder that can be written")


@contextlib.contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Provide a temporary path in the folder of ``target`` that becomes ``target`` on success and disappears on failure.

    Raises:
        PonderTTTError: the disk is full; ``target`` is unchanged.
    """
    target = Path(target)
    temporary = None
    try:
        with full_disk_named(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                prefix=f".{target.name}.", suffix=target.suffix, dir=target.parent
            )
            os.close(handle)
            temporary = Path(name)
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            # mkstemp creates private files; results get the permissions of ordinary files.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(target)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8"
        )


def write_json_lines(path: Path | str, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
