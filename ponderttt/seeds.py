"""Random keys from configured seeds, folded by name, so that no order of execution changes them."""

from __future__ import annotations

import zlib

import jax
from jaxtyping import Array, Key


def named_key(seed: int, *names: str | int) -> Key[Array, ""]:
    """A key of ``seed`` for this sequence of names; stable across processes, unlike Python's ``hash``."""
    key = jax.random.key(seed)
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(str(name).encode()))
    return key
