"""Random keys from configured seeds, folded by name, so that no order of execution changes them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Array, Key

#: A seed is a whole number from 0 to below this: random keys hold 32 bits of it, so one outside would silently equal another.
SEEDS = 2**32


def named_key(seed: int, *names: str | int) -> Key[Array, ""]:
    """A key of ``seed`` for this sequence of names; stable across processes, unlike Python's ``hash``."""
    import jax

    key = jax.random.key(seed)
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(str(name).encode()))
    return key
