"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864) in the layout of Hugging Face models: the two halves of a head are paired."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rotary_angles(
    positions: Int[Array, " T"], head_dim: int, base: float, factor: float = 1.0
) -> tuple[Float[Array, "T {head_dim//2}"], Float[Array, "T {head_dim//2}"]]:
    """Return cosines and sines of positions, which are divided by ``factor`` first (Chen et al. 2023, arXiv:2306.15595)."""
    frequency = 1.0 / base ** (jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle = positions.astype(jnp.float32)[:, None] * (frequency / factor)
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    heads: Float[Array, "T N H"], angles: tuple[Float[Array, "#T H//2"], Float[Array, "#T H//2"]]
) -> Float[Array, "T N H"]:
    """Rotate the pairs (i, i + H/2) of every head by its position's angles; computed in float32."""
    cosine, sine = angles[0][:, None], angles[1][:, None]
    first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(heads.dtype)
