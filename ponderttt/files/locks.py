"""Locks on files.  A lock ends with the process that holds it, however the process ends."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO

from ponderttt.errors import PonderTTTError


def lock(path: Path, message: str) -> TextIO:
    """Lock a file, made if missing; closing the result releases it.

    Raises:
        PonderTTTError: another process has the lock; ``message`` says what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.open("w", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise PonderTTTError(message) from None
    return handle
