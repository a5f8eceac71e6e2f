"""Random keys from configured seeds, folded by name, so that they do not depend on the order of execution."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Array, Key

#: Seeds are whole numbers from 0 to below this.  Random keys use 32 bits, so a larger seed would silently equal another.
SEEDS = 2**32


def named_key(seed: int, *names: str | int) -> Key[Array, ""]:
    """Return the key of ``seed`` for a sequence of names; it is the same in all processes, unlike Python's ``hash``."""
    import jax

    key = jax.random.key(seed)
    for name in names:
        key = jax.random.fold_in(key, zlib.crc32(str(name).encode()))
    return key
