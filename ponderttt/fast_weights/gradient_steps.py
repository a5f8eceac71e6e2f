"""Updates by gradient: optimiser steps on a chunk's loss, whose rates are slow weights.

Gradients are first order: when slow weights are trained through an update, its direction is a constant, but not its
start and its rates (Finn et al. 2017, arXiv:1703.03400, §5.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ponderttt.fast_weights.base import clip_by_norm

#: A pytree of the matrices that change.
Matrices = Any


class Descent(NamedTuple):
    """Matrices and their optimiser's state, both carried from chunk to chunk."""

    matrices: Matrices
    optimiser: optax.OptState


def adam() -> optax.GradientTransformation:
    """Return Adam without a rate: rates are slow weights and are applied outside."""
    return optax.chain(optax.scale_by_adam(), optax.scale(-1.0))


def begin(matrices: Matrices) -> Descent:
    """Return matrices with a fresh optimiser state."""
    return Descent(matrices, adam().init(matrices))


def gradient_steps(
    start: Descent, loss: Callable[[Matrices], Array], rates: Matrices, clip_norm: float, steps: int
) -> tuple[Descent, Float[Array, ""], Int[Array, ""]]:
    """Make exactly ``steps`` Adam steps.

    Args:
        start: matrices and optimiser state before the first step.
        loss: function of the matrices that returns a scalar.
        rates: rate of each matrix, in the structure of the matrices.
        clip_norm: largest global norm of a gradient.
        steps: number of steps, static, at least 1.

    Returns:
        Matrices and state after the last step, the loss before the first step, and the number of steps.
    """
    optimiser = adam()

    def step(carry: tuple[Descent, Array], _: None) -> tuple[tuple[Descent, Array], Array]:
        before, count = carry
        value, gradients = jax.value_and_grad(loss)(jax.lax.stop_gradient(before.matrices))
        gradients = clip_by_norm(gradients, clip_norm)
        direction, state = optimiser.update(gradients, before.optimiser)
        direction, state = jax.lax.stop_gradient((direction, state))
        moved = jax.tree.map(lambda p, r, d: p + r * d, before.matrices, rates, direction)
        return (Descent(moved, state), count + 1), value

    (end, count), losses = jax.lax.scan(step, (start, jnp.zeros((), jnp.int32)), length=steps)
    return end, losses[0], count


def opposite(before: Descent, after: Descent) -> Descent:
    """Move the matrices in the opposite direction; the moments of the optimiser stay as in ``after``."""
    return after._replace(matrices=jax.tree.map(lambda b, a: 2 * b - a, before.matrices, after.matrices))
