"""Build the files of a folder in a staging folder and move them together, so that a failure leaves the old ones whole."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import full_disk_named
from ponderttt.files.manifest import MANIFEST

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
        with full_disk_named(target):
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
    except (OSError, PonderTTTError):
        # Removes a folder that is empty.
        with contextlib.suppress(OSError):
            target.rmdir()
        raise
