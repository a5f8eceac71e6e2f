"""The interface of fast-weight modules, and their inputs.

*Slow* weights are the parameters of the NNX module, trained across streams.  *Fast* weights are an explicit
pytree that the caller holds: :meth:`FastWeights.reset` creates it at the start of a stream, and only
:meth:`FastWeights.adapt` changes it.  All functions take one chunk of one stream; callers batch with ``vmap``.
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
    """One chunk of T tokens after the frozen pass, independent of fast weights."""

    hidden: Float[Array, "T D"]
    #: Token that follows each position.
    targets: Int[Array, " T"]
    #: True where the target is a real token of the stream.
    mask: Bool[Array, " T"]
    #: Entropy of the frozen model's prediction at each position, nats.
    entropy: Float[Array, " T"]
    #: Frozen negative log-likelihood of each target, nats, 0 where masked.
    nll_frozen: Float[Array, " T"]
    #: Residual stream at the split layer, for modules that adapt the blocks after it; states before the last T are
    #: context (a beginning-of-sequence token).
    split: Float[Array, "S D"] | None = None


def as_chunk(fields: Mapping[str, np.ndarray]) -> Chunk:
    """Put a chunk, or a batch of chunks, on the device in the dtypes of the modules; ``split`` is optional."""
    dtypes = {"targets": jnp.int32, "mask": bool}
    return Chunk(
        **{name: jnp.asarray(value, dtypes.get(name, jnp.float32)) for name, value in fields.items()}
    )


class Readout(NamedTuple):
    """The frozen vocabulary projection, and its product with one chunk."""

    #: [V, D], as the model stores it.
    unembedding: Any
    #: ``hidden @ unembedding.T``; computed once per chunk and shared by every arm that reads the chunk.  If
    #: ``None``, positions are projected on demand (training samples a few).
    logits: Float[Array, "T V"] | None = None
    #: ``E·P`` of a module whose P is slow, if the caller has computed it.
    basis: Float[Array, "V R"] | None = None
    #: Frozen weights of the blocks after the split layer (:class:`ponderttt.models.suffix.SuffixWeights`).
    suffix: Any = None

    def rows(self, chunk: Chunk, positions: Int[Array, " S"] | None) -> Float[Array, "S V"]:
        """Return frozen logits of some positions of the chunk, or of all without a copy."""
        if self.logits is None:
            return frozen_logits(
                chunk.hidden if positions is None else chunk.hidden[positions], self.unembedding
            )
        return self.logits if positions is None else self.logits[positions]


class Adaptation(NamedTuple):
    """Result of learning from a chunk."""

    fast: Fast
    #: Inner loss before the first update; the reconstruction signal of the next chunk.
    inner_loss: Float[Array, ""]
    #: Number of updates made.
    steps: Int[Array, ""]


class Scored(NamedTuple):
    """What a module reads of a chunk."""

    #: Negative log-likelihood of each target in nats, 0 where masked.
    nll: Float[Array, " S"]
    #: What :meth:`FastWeights.follow` keeps of the chunk; None for modules that keep nothing.
    fresh: Any = None


class FastWeights(nnx.Module, abc.ABC):
    """A module with fast weights: it resets them, scores a chunk without changing them, and learns from a chunk."""

    #: Part of the frozen pass that a read uses: the chunk's logits (shared by all arms), only their losses, or the
    #: residual stream at the split layer, from which it computes its own hidden states and logits.
    reads: ClassVar[Literal["logits", "losses", "split"]]
    #: True if the module has a causal in-chunk read (protocol ``in_chunk``).
    reads_in_chunk: ClassVar[bool] = False
    #: True if two updates are one update twice on the same chunk, up to rounding.
    steps_compose: ClassVar[bool] = False

    @property
    def follows(self) -> bool:
        """Whether reads attend to earlier chunks, whose keys and values :meth:`follow` keeps with the fast weights."""
        return False

    @abc.abstractmethod
    def reset(self) -> Fast:
        """Return the fast weights at the start of every stream."""

    @abc.abstractmethod
    def score(self, fast: Fast, chunk: Chunk, readout: Readout) -> Float[Array, " T"]:
        """Return the negative log-likelihood of each target in nats, 0 where masked; changes nothing."""

    @abc.abstractmethod
    def score_positions(
        self, fast: Fast, chunk: Chunk, readout: Readout, positions: Int[Array, " S"]
    ) -> Float[Array, " S"]:
        """Return :meth:`score` of some positions of the chunk; the others are read as context."""

    def read_chunk(
        self, fast: Fast, chunk: Chunk, readout: Readout, positions: Int[Array, " S"] | None = None
    ) -> Scored:
        """Return :meth:`score`, or :meth:`score_positions`, and what :meth:`follow` keeps of the chunk."""
        if positions is None:
            return Scored(self.score(fast, chunk, readout))
        return Scored(self.score_positions(fast, chunk, readout, positions))

    def follow(self, before: Fast, after: Fast, fresh: Any) -> Fast:
        """Return the fast weights with which the next chunk is read.

        Args:
            before: fast weights that read the chunk.
            after: fast weights after its updates, if any.
            fresh: what :meth:`read_chunk` found with ``before``.
        """
        return after

    def trimmed(self, fast: Fast, chunks: int) -> Fast:
        """Return the fast weights without room for more than ``chunks`` earlier chunks: smaller, and faster to read with.

        :meth:`follow` takes the untrimmed ones as ``before``.
        """
        return fast

    @abc.abstractmethod
    def adapt(self, fast: Fast, chunk: Chunk, readout: Readout, steps: int) -> Adaptation:
        """Learn from a chunk with exactly ``steps`` updates, a static integer of at least 1."""

    @abc.abstractmethod
    def next_token(
        self, fast: Fast, chunk: Chunk, readout: Readout, positions: Int[Array, " S"] | None = None
    ) -> Float[Array, "S V"]:
        """Return log-probabilities of the next token at some positions (all by default), for decoding.

        Later positions and targets are not read.
        """

    def reconstruction(self, fast: Fast, chunk: Chunk) -> Float[Array, ""] | None:
        """Return the reconstruction error of the chunk's hidden states per real token; ``None`` if there is none.

        It needs no targets, so it is known before a chunk is scored.
        """
        return None

    def prepare(self, hidden: Float[np.ndarray, "N D"]) -> None:
        """Set slow weights that are statistics of training states (N real tokens) before training; none by default."""
        return

    def flipped(self, before: Fast, after: Fast) -> Fast:
        """Return ``before − (after − before)``, for the control sign_flipped; integers stay as in ``after``."""
        return jax.tree.map(
            lambda b, a: 2 * b - a if jnp.issubdtype(b.dtype, jnp.floating) else a, before, after
        )

    def blended(self, before: Fast, after: Fast, share: Float[Array, ""]) -> Fast:
        """Return fast weights that keep a ``share`` (0..1) of an update: exactly ``before`` at 0 and ``after`` at 1.

        Integers are those of ``after`` for every share greater than 0.
        """

        def leaf(b: Array, a: Array) -> Array:
            if jnp.issubdtype(b.dtype, jnp.floating):
                # b + share·(a − b), in the form that is exact at both ends.
                return (1 - share) * b + share * a
            return jnp.where(share > 0, a, b)

        return jax.tree.map(leaf, before, after)

    def score_and_adapt_in_chunk(
        self, fast: Fast, chunk: Chunk, readout: Readout
    ) -> tuple[Float[Array, " T"], Adaptation]:
        """Read each token with weights updated by the tokens up to it (protocol ``in_chunk``).

        Raises:
            NotImplementedError: the inner loss needs next-token labels, so a causal read is impossible.
        """
        raise NotImplementedError(f"{type(self).__name__} has no causal in-chunk read")


class HiddenCorrection(FastWeights):
    """A module whose read adds a low-rank correction to the final hidden state.

    ``read(h) = h + z·Pᵀ`` with z [T, R] and P [D, R], so that the corrected logits are the frozen logits
    plus ``z·(E·P)ᵀ``.  All arms share the D-wide product with the vocabulary, the most expensive part of scoring; an
    arm computes only R columns.
    """

    reads = "logits"
    #: True if ``basis`` changes with the fast weights; if not, its product with the vocabulary is computed once.
    basis_is_fast: ClassVar[bool] = True

    @abc.abstractmethod
    def correction(self, fast: Fast, hidden: Float[Array, "T D"]) -> Float[Array, "T R"]:
        """Return the coordinates z of the correction; position t depends on positions ≤ t only."""

    @abc.abstractmethod
    def basis(self, fast: Fast) -> Float[Array, "D R"]:
        """Return the directions P of the correction."""

    def read(self, fast: Fast, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        """Return the corrected hidden state, the input of the vocabulary projection."""
        return hidden + jnp.einsum("TR,DR->TD", self.correction(fast, hidden), self.basis(fast))

    def vocabulary_basis(self, fast: Fast, unembedding: Any) -> Float[Array, "V R"]:
        """Return ``E·P``: what one unit of each coordinate adds to the logits."""
        return vocabulary_product(unembedding, self.basis(fast))

    def score(self, fast: Fast, chunk: Chunk, readout: Readout) -> Float[Array, " T"]:
        """Return the negative log-likelihood of each target in nats, 0 where masked; changes nothing."""
        return self._nll(self.correction(fast, chunk.hidden), fast, chunk, readout)

    def score_positions(
        self, fast: Fast, chunk: Chunk, readout: Readout, positions: Int[Array, " S"]
    ) -> Float[Array, " S"]:
        """Return :meth:`score` of some positions of the chunk; the others are read as context."""
        return self._nll(self.correction(fast, chunk.hidden), fast, chunk, readout, positions)

    def _nll(
        self,
        correction: Float[Array, "T R"],
        fast: Fast,
        chunk: Chunk,
        readout: Readout,
        positions: Int[Array, " S"] | None = None,
    ) -> Float[Array, " S"]:
        """Return the masked loss of a correction, at some positions or at all."""
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
    """Return the mean over real tokens; 0 if there is none."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
