"""Convert the parameters of an NNX module to arrays by name, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

Module = TypeVar("Module", bound=nnx.Module)


def parameters(module: nnx.Module) -> dict[str, np.ndarray]:
    """Return name → array for every parameter."""
    flat = nnx.to_flat_state(nnx.state(module, nnx.Param))
    return {".".join(map(str, path)): np.asarray(variable[...]) for path, variable in flat}


def with_parameters(module: Module, stored: Mapping[str, np.ndarray]) -> Module:
    """Return the module with other parameters.

    Raises:
        ValueError: a parameter is missing, unknown or of another shape.
    """
    expected = parameters(module)
    if wrong := sorted(stored.keys() ^ expected.keys()):
        raise ValueError(f"parameters {wrong} are missing or unknown")
    for name, value in expected.items():
        if stored[name].shape != value.shape:
            raise ValueError(f"{name} has shape {stored[name].shape}, expected {value.shape}")
    graph, state = nnx.split(module)
    filled = [
        (path, variable.replace(jnp.asarray(stored[".".join(map(str, path))])))
        for path, variable in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(filled))
