"""Standard output that may be closed, full, or in an encoding without some characters."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ponderttt.errors import PonderTTTError


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Write all output of a command, and escape characters that the encoding of the terminal lacks.

    Raises:
        PonderTTTError: the device of standard output is full.
        SystemExit: the reader of standard output (such as ``head``) has closed it.
    """
    if sys.stdout is None:  # closed before the start
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the exit
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        raise PonderTTTError("standard output: the device is full; write to another one") from None


def _drop_output() -> None:
    """Send the rest of standard output nowhere, since Python flushes it once more at its exit."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
