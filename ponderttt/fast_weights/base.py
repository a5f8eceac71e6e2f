"""What every fast-weight module offers, and what it is given.

*Slow* weights are the parameters of the NNX module, trained across streams.  *Fast* weights are an explicit
pytree that the caller holds: made by :meth:`FastWeights.reset` at the start of a stream, changed by nothing but
:meth:`FastWeights.adapt`.  All of it is written for one chunk of one stream; callers batch with ``vmap``.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ponderttt.models.losses import corrected_cross_entropy, frozen_logits, vocabulary_product

#: A pytree of float32 arrays.
Fast = Any


class Chunk(NamedTuple):
    """What the frozen pass knows of one chunk of T tokens; nothing in it depends on fast weights."""

    hidden: Float[Array, "T D"]
    #: Token that follows each position.
    targets: Int[Array, " T"]
    #: True where the target is a real token of the stream.
    mask: Bool[Array, " T"]
    #: Entropy of the frozen model's prediction at each position, nats.
    entropy: Float[Array, " T"]
    #: Frozen negative log-likelihood of each target, nats, 0 where masked.
    nll_frozen: Float[Array, " T"]
    #: Residual stream at the split layer, for modules that adapt the blocks after it; states in front of the last T are
    #: context (a beginning-of-sequence token).
    split: Float[Array, "S D"] | None = None


def as_chunk(fields: Mapping[str, np.ndarray]) -> Chunk:
    """A chunk (or a batch of them) on the device, in the dtypes that the modules expect; ``split`` may be missing."""
    dtypes = {"targets": jnp.int32, "mask": bool}
    return Chunk(
        **{name: jnp.asarray(value, dtypes.get(name, jnp.float32)) for name, value in fields.items()}
    )


class Readout(NamedTuple):
    """The frozen vocabulary projection, and its product with one chunk."""

    #: [V, D], as the model keeps it.
    unembedding: Any
    #: ``hidden @ unembedding.T``; computed once per chunk and shared by every arm that reads the chunk.  ``None``
    #: where few positions are needed (training samples them), which are then projected on demand.
    logits: Float[Array, "T V"] | None = None
    #: ``E·P`` of a module whose P is slow, if the caller has it already.
    basis: Float[Array, "V R"] | None = None
    #: Frozen weights of the blocks after the split layer (:class:`ponderttt.models.suffix.SuffixWeights`).
    suffix: Any = None

    def rows(self, chunk: Chunk, positions: Int[Array, " S"] | None) -> Float[Array, "S V"]:
        """Frozen logits of some positions of the chunk, or of all: then nothing is copied."""
        if self.logits is None:
            return frozen_logits(
                chunk.hidden if positions is None else chunk.hidden[positions], self.unembedding
            )
        return self.logits if positions is None else self.logits[positions]


class Adaptation(NamedTuple):
    """The outcome of learning from a chunk."""

    fast: Fast
    #: Inner loss at the first step, before anything changed; what a reconstruction gate may look at next time.
    inner_loss: Float[Array, ""]
    #: Number of updates that were made.
    steps: Int[Array, ""]


class FastWeights(nnx.Module, abc.ABC):
    """What the loop needs of a module: fresh fast weights, a score that changes nothing, and learning from a chunk."""

    #: What of the frozen pass a read builds on: the chunk's logits (shared by all arms), only their losses, or the
    #: residual stream at the split layer, from which it makes hidden states and logits of its own.
    reads: ClassVar[Literal["logits", "losses", "split"]]
    #: Whether a causal in-chunk read exists (protocol ``in_chunk``).
    reads_in_chunk: ClassVar[bool] = False
    #: Whether two updates are one update twice on the same chunk, to rounding.
    steps_compose: ClassVar[bool] = False

    @abc.abstractmethod
    def reset(self) -> Fast:
        """Fresh fast weights, as they stand at the start of every stream."""

    @abc.abstractmethod
    def score(self, fast: Fast, chunk: Chunk, readout: Readout) -> Float[Array, " T"]:
        """Negative log-likelihood of each target in nats, 0 where masked; changes nothing."""

    @abc.abstractmethod
    def score_positions(
        self, fast: Fast, chunk: Chunk, readout: Readout, positions: Int[Array, " S"]
    ) -> Float[Array, " S"]:
        """:meth:`score` of some positions of the chunk; the others are read, since they are context."""

    @abc.abstractmethod
    def adapt(self, fast: Fast, chunk: Chunk, readout: Readout, steps: int) -> Adaptation:
        """Learn from a chunk with exactly ``steps`` updates, a static integer of at least 1."""

    @abc.abstractmethod
    def next_token(
        self, fast: Fast, chunk: Chunk, readout: Readout, positions: Int[Array, " S"] | None = None
    ) -> Float[Array, "S V"]:
        """Log-probabilities of the next token at some positions (all by default), for decoding.

        Nothing that comes after a position is looked at, nor are targets.
        """

    def reconstruction(self, fast: Fast, chunk: Chunk) -> Float[Array, ""] | None:
        """How badly the fast weights reconstruct the chunk's hidden states, per real token; ``None``: they do not.

        Labels are not looked at, so it can be known before a chunk is scored.
        """
        return None

    def prepare(self, hidden: Float[np.ndarray, "N D"]) -> None:
        """Set whatever slow weights are statistics of training states (N real tokens) before training; none here."""
        return

    def flipped(self, before: Fast, after: Fast) -> Fast:
        """``before − (after − before)``: the control whose update goes the other way; whole numbers stay as in ``after``."""
        return jax.tree.map(
            lambda b, a: 2 * b - a if jnp.issubdtype(b.dtype, jnp.floating) else a, before, after
        )

    def blended(self, before: Fast, after: Fast, share: Float[Array, ""]) -> Fast:
        """Fast weights that keep ``share`` (0..1) of an update: exactly ``before`` at 0 and ``after`` at 1.

        Whole numbers cannot be shared: they are those of ``after`` wherever anything of the update is kept.
        """

        def leaf(b: Array, a: Array) -> Array:
            if jnp.issubdtype(b.dtype, jnp.floating):
                # b + share·(a − b), in the form whose ends carry no rounding.
                return (1 - share) * b + share * a
            return jnp.where(share > 0, a, b)

        return jax.tree.map(leaf, before, after)

    def score_and_adapt_in_chunk(
        self, fast: Fast, chunk: Chunk, readout: Readout
    ) -> tuple[Float[Array, " T"], Adaptation]:
        """Protocol ``in_chunk``: read each token with weights updated by the tokens up to it.

        Raises:
            NotImplementedError: the inner loss of this module needs next-token labels, so no causal read exists.
        """
        raise NotImplementedError(f"{type(self).__name__} has no causal in-chunk read")


class HiddenCorrection(FastWeights):
    """A module whose read adds a low-rank correction to the final hidden state.

    ``read(h) = h + z·Pᵀ`` with z [T, R] and P [D, R], so that the corrected logits are the frozen logits
    plus ``z·(E·P)ᵀ``.  The D-wide product with the vocabulary, the dearest part of scoring, is thus the same for
    all arms; an arm pays R columns of it.
    """

    reads = "logits"
    #: Whether ``basis`` changes with the fast weights; if not, its product with the vocabulary is made once.
    basis_is_fast: ClassVar[bool] = True

    @abc.abstractmethod
    def correction(self, fast: Fast, hidden: Float[Array, "T D"]) -> Float[Array, "T R"]:
        """The coordinates z of the correction; position t depends on positions ≤ t only."""

    @abc.abstractmethod
    def basis(self, fast: Fast) -> Float[Array, "D R"]:
        """The directions P of the correction."""

    def read(self, fast: Fast, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        """The hidden state as the vocabulary projection would see it."""
        return hidden + jnp.einsum("TR,DR->TD", self.correction(fast, hidden), self.basis(fast))

    def vocabulary_basis(self, fast: Fast, unembedding: Any) -> Float[Array, "V R"]:
        """``E·P``: what one unit of each coordinate adds to the logits."""
        return vocabulary_product(unembedding, self.basis(fast))

    def score(self, fast: Fast, chunk: Chunk, readout: Readout) -> Float[Array, " T"]:
        """Negative log-likelihood of each target in nats, 0 where masked; changes nothing."""
        return self._nll(self.correction(fast, chunk.hidden), fast, chunk, readout)

    def score_positions(
        self, fast: Fast, chunk: Chunk, readout: Readout, positions: Int[Array, " S"]
    ) -> Float[Array, " S"]:
        """:meth:`score` of some positions of the chunk; the others are read, since they are context."""
        return self._nll(self.correction(fast, chunk.hidden), fast, chunk, readout, positions)

    def _nll(
        self,
        correction: Float[Array, "T R"],
        fast: Fast,
        chunk: Chunk,
        readout: Readout,
        positions: Int[Array, " S"] | None = None,
    ) -> Float[Array, " S"]:
        """Masked loss of a correction that was made already, at some positions or at all."""
        targets, mask = chunk.targets, chunk.mask
        if positions is not None:
            correction, targets, mask = correction[positions], targets[positions], mask[positions]
        basis = self.vocabulary_basis(fast, readout.unembedding) if readout.basis is None else readout.basis
        nll = corrected_cross_entropy(readout.rows(chunk, positions), correction, basis, targets)
        return jnp.where(mask, nll, 0.0)

    def next_token(
        self, fast: Fast, chunk: Chunk, readout: Readout, positions: Int[Array, " S"] | None = None
    ) -> Float[Array, "S V"]:
        """See :meth:`FastWeights.next_token`."""
        read = self.read(fast, chunk.hidden)
        logits = frozen_logits(read if positions is None else read[positions], readout.unembedding)
        return jax.nn.log_softmax(logits, axis=-1)


def clip_by_norm(gradients: Fast, limit: float) -> Fast:
    """Scale a pytree of gradients so that its global norm is at most ``limit``."""
    # optax.clip_by_global_norm divides by the norm first, which rounds differently: recorded losses would change.
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)))
    scale = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda leaf: leaf * scale, gradients)


def masked_mean(values: Float[Array, " T"], mask: Bool[Array, " T"]) -> Float[Array, ""]:
    """Mean over real tokens; 0 if there is none."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
