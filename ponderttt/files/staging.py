"""Build the files of a folder aside and move them in together, so that a failure leaves the old ones whole."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ponderttt.errors import PonderTTTError
from ponderttt.files.manifest import MANIFEST

# A quota or a file system's limit on the size of a file is as full as a disk can be.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PREFIX = ".building-"


@contextlib.contextmanager
def staged_folder(target: Path | str, pattern: str) -> Iterator[Path]:
    """A temporary folder whose files, manifest last, replace those of ``target`` when the block succeeds.

    Only one process may fill a target at a time: what a killed one left in it is removed.

    Args:
        target: the folder to fill; made if missing.
        pattern: glob of the files that an earlier build may have left in ``target``, which are removed.

    Raises:
        PonderTTTError: the disk is full; ``target`` is as it was.
    """
    target = Path(target)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.glob(f"{_PREFIX}*"):
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=target) as name:
            staged = Path(name)
            yield staged
            # Without a manifest the folder counts as unfinished, so a kill from here on is noticed by readers.
            (target / MANIFEST).unlink(missing_ok=True)
            for old in target.glob(pattern):
                old.unlink()
            for path in sorted(staged.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
                path.replace(target / path.name)
    except (OSError, PonderTTTError) as error:
        # A folder that was made for nothing goes; one with anything in it stays.
        with contextlib.suppress(OSError):
            target.rmdir()
        # A full disk met while the staged manifest was written arrives as an error about the staging folder.
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno in _FULL:
            raise PonderTTTError(
                f"{target}: the disk is full; nothing was written. Free some space and run the same command again."
            ) from error
        raise
