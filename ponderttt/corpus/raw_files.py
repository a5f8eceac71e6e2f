"""A file as it was found in a folder or archive, before any check."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class RawFile:
    """A regular file as it was found."""

    #: Relative to the folder or archive, with forward slashes; see :func:`utf8_name`.
    path: str
    #: In bytes.
    size: int
    #: None for a file that was not wanted, or that is larger than the reader may hold.
    content: bytes | None


def every_path(path: str) -> bool:
    """Want the content of every file."""
    return True


def utf8_name(name: str) -> str:
    r"""Return a file name as UTF-8 text, whatever the locale; bytes that are not UTF-8 become ``\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
