"""Norms over the last axis, computed in float32 and returned in the dtype of their input."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def rms_norm(hidden: Float[Array, "*B D"], weight: Float[Array, " D"], eps: float) -> Float[Array, "*B D"]:
    """Apply root-mean-square norm (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    wide = hidden.astype(jnp.float32)
    scaled = wide * lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return (scaled * weight.astype(jnp.float32)).astype(hidden.dtype)


def offset_rms_norm(
    hidden: Float[Array, "*B D"], weight: Float[Array, " D"], eps: float
) -> Float[Array, "*B D"]:
    """Apply RMS norm with a weight that is stored as its distance from 1, as in Gemma."""
    return rms_norm(hidden, 1.0 + weight.astype(jnp.float32), eps)


def layer_norm(
    hidden: Float[Array, "*B D"], weight: Float[Array, " D"], bias: Float[Array, " D"], eps: float
) -> Float[Array, "*B D"]:
    """Apply layer norm (Ba et al. 2016, arXiv:1607.06450)."""
    wide = hidden.astype(jnp.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    scaled = centred * lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + eps)
    return (scaled * weight.astype(jnp.float32) + bias.astype(jnp.float32)).astype(hidden.dtype)
