"""Build the files of a folder in a staging folder and move them together, so that a failure leaves the old ones whole."""

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
    """Provide a temporary folder whose files, manifest last, replace those of ``target`` if the block succeeds.

    Only one process may fill a target at a time; remains of a killed one are removed.

    Args:
        target: the folder to fill; created if missing.
        pattern: glob of the files of earlier builds to remove from ``target``.

    Raises:
        PonderTTTError: the disk is full; ``target`` is unchanged.
    """
    target = Path(target)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.glob(f"{_PREFIX}*"):
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=target) as name:
            staged = Path(name)
            yield staged
            # A folder without a manifest counts as unfinished, so readers notice if the process is killed from here on.
            (target / MANIFEST).unlink(missing_ok=True)
            for old in target.glob(pattern):
                old.unlink()
            for path in sorted(staged.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
                path.replace(target / path.name)
    except (OSError, PonderTTTError) as error:
        # Removes a folder that is empty.
        with contextlib.suppress(OSError):
            target.rmdir()
        # If the disk fills up while the manifest is written, the error is about the staging folder.
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno in _FULL:
            raise PonderTTTError(
                f"{target}: the disk is full; nothing was written. Free some space and run the same command again."
            ) from error
        raise
