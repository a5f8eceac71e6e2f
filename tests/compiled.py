"""Forget compiled programs when a test process has grown large."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from pathlib import Path

import jax

#: Resident bytes of a process above which its compiled programs are dropped.
LARGE = 1_000_000_000


def resident() -> float:
    """Resident bytes of this process; infinite where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return float("inf")
    return pages * os.sysconf("SC_PAGE_SIZE")


def forget_if_large() -> None:
    """Drop JAX's caches and return their memory to the system; slow programs are still cached on disk."""
    if resident() > LARGE:
        jax.clear_caches()
        gc.collect()
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
