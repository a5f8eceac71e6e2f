"""The compiled programs of one module of fast weights, for B streams at once; slow weights are an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from ponderttt.actions import Action
from ponderttt.costs import Measured, Program
from ponderttt.fast_weights.base import Chunk, Fast, FastWeights, HiddenCorrection, Readout
from ponderttt.models.losses import frozen_logits

#: The frozen vocabulary projection of B chunks; compiled once per shape, for all arms.
PROJECT = Program(jax.vmap(frozen_logits, in_axes=(0, None)))

#: Streams share the frozen matrices and have their own logits.
READOUT_AXES = Readout._make(0 if name == "logits" else None for name in Readout._fields)


class ModulePrograms:
    """The programs that the loop runs; see :class:`ponderttt.fast_weights.base.FastWeights` for the methods."""

    def __init__(self, module: FastWeights) -> None:
        graph, self.slow = nnx.split(module)
        self.reads = module.reads
        self.reads_in_chunk = module.reads_in_chunk
        self.steps_compose = module.steps_compose
        self.follows, self.trimmed = module.follows, module.trimmed

        def batched(method: str, *static: Any) -> Callable[..., Any]:
            def run(slow: Any, fast: Fast, chunk: Chunk, readout: Readout) -> Any:
                bound = getattr(nnx.merge(graph, slow), method)
                one = lambda f, c, r: bound(f, c, r, *static)  # noqa: E731
                return jax.vmap(one, in_axes=(0, 0, READOUT_AXES))(fast, chunk, readout)

            return run

        def reconstruct(slow: Any, fast: Fast, chunk: Chunk) -> Any:
            return jax.vmap(nnx.merge(graph, slow).reconstruction)(fast, chunk)

        self.reset = Program(lambda slow: nnx.merge(graph, slow).reset())
        #: Returns :class:`ponderttt.fast_weights.base.Scored`.
        self.score = Program(batched("read_chunk"))
        #: See :meth:`ponderttt.fast_weights.base.FastWeights.follow`.
        self.follow = jax.jit(jax.vmap(module.follow))
        #: None for modules without a reconstruction error.
        self.reconstruct = (
            None if type(module).reconstruction is FastWeights.reconstruction else Program(reconstruct)
        )
        self.in_chunk = Program(batched("score_and_adapt_in_chunk"))
        self.adapt = {action: Program(batched("adapt", action.steps)) for action in Action if action.steps}
        self.flipped = jax.jit(jax.vmap(module.flipped))
        self.blended = jax.jit(jax.vmap(module.blended))

        def slow_basis(slow: Any, unembedding: Any) -> Float[Array, "V R"]:
            merged = nnx.merge(graph, slow)
            assert isinstance(merged, HiddenCorrection)
            return merged.vocabulary_basis(merged.reset(), unembedding)

        self._basis_of = (
            jax.jit(slow_basis) if isinstance(module, HiddenCorrection) and not module.basis_is_fast else None
        )
        self._basis: Float[Array, "V R"] | None = None

    def readout(self, unembedding: Any, logits: Float[Array, "B T V"] | None, suffix: Any) -> Readout:
        """Return what this module reads a chunk with, and nothing that it does not need."""
        if self.reads == "split":
            return Readout(unembedding, suffix=suffix)
        if self.reads == "losses":
            return Readout(unembedding)
        # If P is slow, ``E·P`` is one product for all streams, computed at the first call.
        if self._basis is None and self._basis_of is not None:
            self._basis = self._basis_of(self.slow, unembedding)
        return Readout(unembedding, logits, self._basis)

    def action_flops(self, chunk: Chunk, readout: Readout) -> dict[Action, float]:
        """Count the FLOPs per stream of scoring a first chunk (SKIP), and of scoring plus each update; nothing is run.

        Args:
            chunk: chunk of one stream (B = 1); its values do not matter.
            readout: what the module reads with.
        """

        def fresh(slow: Any) -> Fast:
            return self.trimmed(jax.tree.map(lambda leaf: leaf[None], self.reset.function(slow)), 0)

        fast = jax.eval_shape(fresh, self.slow)
        arguments = (self.slow, fast, chunk, readout)
        skip = self.score.flops(*arguments)
        return {Action.SKIP: skip} | {
            action: skip + program.flops(*arguments) for action, program in self.adapt.items()
        }


def project(chunk: Chunk, unembedding: Any) -> Measured:
    """Return the frozen logits of B chunks; the matrix [V, D] is as the model keeps it."""
    return PROJECT(chunk.hidden, unembedding)
