"""The devices that JAX finds, and environment variables of JAX that must not reach a study."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ponderttt.errors import PonderTTTError

if TYPE_CHECKING:
    from jax import Device

#: Variables that change numbers, or that make JAX refuse programs that are right.  No digest covers them.
IGNORED = (
    "JAX_ENABLE_X64",
    "JAX_NUMPY_DTYPE_PROMOTION",
    "JAX_NUMPY_RANK_PROMOTION",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_DEFAULT_PRNG_IMPL",
    "JAX_THREEFRY_PARTITIONABLE",
    "JAX_RANDOM_SEED_OFFSET",
    "JAX_DEBUG_NANS",
    "JAX_DEBUG_INFS",
    "JAX_DEBUG_KEY_REUSE",
    "JAX_NO_TRACING",
    "JAX_TRANSFER_GUARD",
    "JAX_TRANSFER_GUARD_DEVICE_TO_DEVICE",
    "JAX_TRANSFER_GUARD_DEVICE_TO_HOST",
    "JAX_TRANSFER_GUARD_HOST_TO_DEVICE",
)


def ignore_variables() -> list[str]:
    """Remove the variables in :data:`IGNORED` from the environment and return a line about each; call it before JAX is imported."""
    found = [(name, os.environ.pop(name)) for name in IGNORED if name in os.environ]
    return [
        f"{name}={value} is ignored, since it would change numbers or stop programs" for name, value in found
    ]


def devices() -> list[Device]:
    """Return the devices of this process.

    Raises:
        PonderTTTError: JAX finds none, as with a platform in JAX_PLATFORMS that is not here.
    """
    try:
        import jax

        return jax.devices()
    except Exception as error:  # each broken runtime raises something else
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        platforms = os.environ.get("JAX_PLATFORMS")
        if platforms:
            raise PonderTTTError(
                f"JAX_PLATFORMS={platforms}: JAX cannot use this platform here ({reason}); unset JAX_PLATFORMS or set it to cpu"
            ) from None
        raise PonderTTTError(
            f"JAX finds no device ({reason}); reinstall jax for this machine, or set JAX_PLATFORMS=cpu"
        ) from None
