"""Next-token losses without a [T, V] array: projection and cross-entropy in blocks of the vocabulary.

One pass keeps, per token, the running maximum m of the logits, s = Σ exp(l − m) and u = Σ exp(l − m)(l − m):

    log-sum-exp = m + log s    nll = log-sum-exp − l[target]    entropy = log s − u / s    confidence = 1 / s

A target of ``vocab_size`` or more is padding: exactly zero loss, entropy, confidence and gradient.  The frozen side of every
product (unembedding, frozen logits) receives no gradient.  All losses are in nats, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ponderttt.models import quantised, sharding
from ponderttt.models.projection import product
from ponderttt.models.quantised import row_block
from ponderttt.seeds import named_key

#: Coordinates (S) of a sketched gradient.
SKETCH_SIZE = 8
#: Most logits in memory at once, per stream: 2 MiB, which fits the cache of one core.
TILE_ELEMENTS = 512 * 1024
_MIN_BLOCK = 128
_LOWEST = -1e30

#: (start, size) of a block of the vocabulary → its logits [M, size], or its rows of a matrix [size, X].
_Blocks = Callable[[Any, int], Array]


def linear_cross_entropy(
    hidden: Float[Array, "*B T D"], unembedding: Any, targets: Int[Array, "*B T"]
) -> Float[Array, "*B T"]:
    """Return the negative log-likelihood of ``targets`` under softmax(hidden · unembeddingᵀ).

    ``unembedding`` [V, D] is as the model stores it.  Memory is that of ``hidden``, for any V.  Differentiable in
    ``hidden``: the forward pass also accumulates the gradient (the expected unembedding row, with the same running
    rescaling), so nothing is computed twice.
    """
    rows, flat = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    return _linear_nll(rows, unembedding, flat).reshape(targets.shape)


class FrozenLosses(NamedTuple):
    """Losses and signals of a frozen model for each token; zero where the target is padding."""

    #: Negative log-likelihood of the target, nats.
    nll: Float[Array, "*B T"]
    #: Entropy of the prediction, nats.
    entropy: Float[Array, "*B T"]
    #: Probability of the most likely token.
    confidence: Float[Array, "*B T"]
    #: Random projection of the gradient of ``nll`` by the hidden state, see :func:`gradient_sketch`.
    gradient_sketch: Float[Array, "*B T S"]


def gradient_sketch(unembedding: Any) -> Float[Array, "V S"]:
    """Project the rows of the unembedding by one fixed Gaussian matrix D → S, once for a model.

    The gradient of a token's loss by its hidden state is Σ_v p_v e_v − e_target.  With projected rows instead of the
    rows e_v, the sum is the projected gradient, whose expected squared length is that of the gradient (Johnson &
    Lindenstrauss 1984).

    Args:
        unembedding: [V, D], as it is stored.
    """
    width = unembedding.shape[-1]
    projection = jax.random.normal(named_key(0, "gradient sketch"), (width, SKETCH_SIZE)) * SKETCH_SIZE**-0.5
    sketch: Array = jax.jit(vocabulary_product)(unembedding, projection)
    return sketch


def frozen_losses(
    hidden: Float[Array, "*B T D"],
    unembedding: Any,
    sketch: Float[Array, "V S"],
    targets: Int[Array, "*B T"],
) -> FrozenLosses:
    """Return :func:`linear_cross_entropy` and signals of the same distribution, in one pass and without a gradient.

    Args:
        hidden: final normed hidden states.
        unembedding: matrix of the frozen model, [V, D], as it is stored.
        sketch: result of :func:`gradient_sketch`.
        targets: next tokens.
    """
    shape, vocab = targets.shape, unembedding.shape[0]
    rows, flat = lax.stop_gradient(hidden.reshape(-1, hidden.shape[-1])), targets.reshape(-1)
    swept = _sweep(_projected(rows, unembedding), len(rows), vocab, entropy=True, expected=_rows_of(sketch))
    safe, real = _safe(flat, unembedding), flat < vocab
    nll = swept.total - product("MD,MD->M", rows, quantised.rows(unembedding, safe))
    slope = jnp.where(real[:, None], swept.mean - sketch[safe], 0.0)
    return FrozenLosses(
        _masked(nll, real).reshape(shape),
        _masked(swept.entropy, real).reshape(shape),
        _masked(swept.confidence, real).reshape(shape),
        slope.reshape(*shape, -1),
    )


def frozen_logits(hidden: Float[Array, "*B T D"], unembedding: Any) -> Float[Array, "*B T V"]:
    """Return hidden · unembeddingᵀ, which many low-rank corrections of the same chunk share.

    ``unembedding`` [V, D] is as the model stores it.
    """
    if quantised.is_exact(unembedding):
        return product("...TD,VD->...TV", hidden, unembedding)
    rows = hidden.reshape(-1, hidden.shape[-1])
    logits_of, vocab = _projected(rows, unembedding), unembedding.shape[0]
    joined = _joined(lambda start, size: logits_of(start, size).T, max(rows.shape), vocab)
    return joined.T.reshape(*hidden.shape[:-1], -1)


def vocabulary_product(unembedding: Any, columns: Float[Array, "D R"]) -> Float[Array, "V R"]:
    """Return unembedding · columns: what one unit of each coordinate adds to the logits.  Differentiable in ``columns``.

    Columns are fast weights, or what they are made of, so they are not rounded to the dtype of the model.
    ``unembedding`` [V, D] is as the model stores it.  One narrower than float32 is opened one block at a time, so that
    memory is bounded for any number of columns.
    """
    if quantised.is_exact(unembedding):
        return jnp.einsum("VD,DR->VR", unembedding, columns)
    rows_of = _rows_of(unembedding)
    return _joined(
        lambda start, size: jnp.einsum("VD,DR->VR", rows_of(start, size), columns),
        max(columns.shape),
        unembedding.shape[0],
    )


def corrected_cross_entropy(
    logits: Float[Array, "*B T V"],
    z: Float[Array, "*B T R"],
    vocab_basis: Float[Array, "V R"],
    targets: Int[Array, "*B T"],
) -> Float[Array, "*B T"]:
    """Return the negative log-likelihood of ``targets`` under softmax(logits + z · vocab_basisᵀ), at a cost of O(T V R).

    With ``vocab_basis = unembedding · B`` this is the loss of the hidden state moved by ``B z`` (LoRA on the final
    hidden state), without projecting D-sized states again.  Differentiable, also twice, in ``z`` and
    ``vocab_basis``.

    Args:
        logits: logits of the frozen model, from :func:`frozen_logits`.
        z: coordinates of the correction.
        vocab_basis: what each coordinate adds to each logit.
        targets: next tokens.
    """
    rank, vocab = vocab_basis.shape[-1], logits.shape[-1]
    nll = _corrected_nll(logits.reshape(-1, vocab), z.reshape(-1, rank), vocab_basis, targets.reshape(-1))
    return nll.reshape(targets.shape)


class _Swept(NamedTuple):
    """Result of one pass over the vocabulary for each row; entropy and mean are valid only if requested."""

    #: Log-sum-exp of the logits.
    total: Float[Array, " M"]
    entropy: Float[Array, " M"]
    #: Largest probability.
    confidence: Float[Array, " M"]
    #: Expectation of the rows of a matrix.
    mean: Float[Array, "M X"]


def _sweep(
    logits_of: _Blocks, rows: int, vocab: int, *, entropy: bool = False, expected: _Blocks | None = None
) -> _Swept:
    """Pass over the vocabulary once, one block at a time."""
    width = jax.eval_shape(lambda: expected(0, 1)).shape[-1] if expected else 0

    def step(carry: tuple[Array, ...], start: Array, size: int) -> tuple[tuple[Array, ...], None]:
        top, total, weighted, mean = carry
        logits = logits_of(start, size)
        peak = jnp.maximum(top, logits.max(axis=-1))
        scale = jnp.exp(top - peak)
        shifted = logits - peak[:, None]
        weight = jnp.exp(shifted)
        if entropy:
            weighted = scale * (weighted + (top - peak) * total) + (weight * shifted).sum(axis=-1)
        if expected:
            mean = scale[:, None] * mean + product("MV,VX->MX", weight, expected(start, size))
        return (peak, scale * total + weight.sum(axis=-1), weighted, mean), None

    zeros = jnp.zeros(rows, jnp.float32)
    start = (zeros + _LOWEST, zeros, zeros, jnp.zeros((rows, width), jnp.float32))
    (top, total, weighted, mean), _ = _over_blocks(step, start, rows, vocab)
    log_total = jnp.log(total)
    return _Swept(top + log_total, log_total - weighted / total, 1 / total, mean / total[:, None])


def _over_blocks(step: Callable[..., tuple[Any, Any]], carry: Any, rows: int, vocab: int) -> tuple[Any, Any]:
    """Scan ``step(carry, start, size)`` over whole blocks, then over the rest of the vocabulary.

    Steps return the carry and [size, …] per block; the latter is joined to [V, …].  Gradients compute steps again, so
    that second derivatives are bounded in memory too.  On a mesh each device has a part of the vocabulary, as one block.
    """
    if sharding.in_use():
        return jax.checkpoint(partial(step, size=vocab))(carry, 0)
    size = min(max(TILE_ELEMENTS // rows, _MIN_BLOCK), vocab)
    whole, rest = divmod(vocab, size)
    body = jax.checkpoint(partial(step, size=size))
    carry, joined = lax.scan(body, carry, jnp.arange(whole) * size)
    joined = jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:]), joined)
    if rest:
        carry, last = jax.checkpoint(partial(step, size=rest))(carry, jnp.asarray(whole * size))
        joined = jax.tree.map(lambda part, tail: jnp.concatenate([part, tail]), joined, last)
    return carry, joined


def _joined(block: _Blocks, rows: int, vocab: int) -> Float[Array, "V X"]:
    """Return ``block(start, size)`` [size, X] for the whole vocabulary."""

    def step(carry: tuple[()], start: Any, size: int) -> tuple[tuple[()], Array]:
        return carry, block(start, size)

    joined: Array = _over_blocks(step, (), rows, vocab)[1]
    return joined


def _rows_of(matrix: Any) -> _Blocks:
    return lambda start, size: row_block(matrix, start, size)


def _projected(hidden: Float[Array, "M D"], unembedding: Any) -> _Blocks:
    rows_of = _rows_of(unembedding)
    return lambda start, size: product("MD,VD->MV", hidden, rows_of(start, size))


def _corrected(
    logits: Float[Array, "M V"], z: Float[Array, "M R"], vocab_basis: Float[Array, "V R"]
) -> _Blocks:
    rows_of = _rows_of(vocab_basis)

    def block(start: Any, size: int) -> Array:
        frozen = lax.dynamic_slice_in_dim(logits, start, size, axis=1)
        return frozen + jnp.einsum("MR,VR->MV", z, rows_of(start, size))

    return block


def _corrected_target(
    logits: Float[Array, "M V"],
    z: Float[Array, "M R"],
    vocab_basis: Float[Array, "V R"],
    targets: Int[Array, " M"],
) -> Float[Array, " M"]:
    safe = _safe(targets, vocab_basis)
    frozen = jnp.take_along_axis(logits, safe[:, None], axis=1)[:, 0]
    return frozen + jnp.einsum("MR,MR->M", z, vocab_basis[safe])


def _safe(targets: Int[Array, " M"], matrix: Any) -> Int[Array, " M"]:
    return jnp.where(targets < matrix.shape[0], targets, 0)


def _masked(values: Float[Array, " M"], real: Array) -> Float[Array, " M"]:
    return jnp.where(real, values, 0.0)


@jax.custom_vjp
def _linear_nll(hidden: Array, unembedding: Any, targets: Array) -> Array:
    vocab = unembedding.shape[0]
    total = _sweep(_projected(hidden, unembedding), len(hidden), vocab).total
    nll = total - product("MD,MD->M", hidden, quantised.rows(unembedding, _safe(targets, unembedding)))
    return _masked(nll, targets < vocab)


def _linear_nll_forward(hidden: Array, unembedding: Any, targets: Array) -> tuple[Array, Array]:
    logits_of, vocab = _projected(hidden, unembedding), unembedding.shape[0]
    swept = _sweep(logits_of, len(hidden), vocab, expected=_rows_of(unembedding))
    row, real = quantised.rows(unembedding, _safe(targets, unembedding)), targets < vocab
    nll = _masked(swept.total - product("MD,MD->M", hidden, row), real)
    return nll, jnp.where(real[:, None], swept.mean - row, 0.0)


def _linear_nll_backward(slope: Array, cotangent: Array) -> tuple[Array, None, None]:
    return cotangent[:, None] * slope, None, None


_linear_nll.defvjp(_linear_nll_forward, _linear_nll_backward)


@jax.custom_vjp
def _corrected_nll(logits: Array, z: Array, vocab_basis: Array, targets: Array) -> Array:
    return _corrected_nll_forward(logits, z, vocab_basis, targets)[0]


def _corrected_nll_forward(
    logits: Array, z: Array, vocab_basis: Array, targets: Array
) -> tuple[Array, tuple[Array, ...]]:
    total = _sweep(_corrected(logits, z, vocab_basis), len(logits), logits.shape[-1]).total
    nll = total - _corrected_target(logits, z, vocab_basis, targets)
    return _masked(nll, targets < logits.shape[-1]), (logits, z, vocab_basis, targets, total)


def _corrected_nll_backward(saved: tuple[Array, ...], cotangent: Array) -> tuple[None, Array, Array, None]:
    logits, z, vocab_basis, targets, total = saved
    weight = _masked(cotangent, targets < logits.shape[-1])[:, None]
    logits_of, rows_of = _corrected(logits, z, vocab_basis), _rows_of(vocab_basis)

    def step(carry: Array, start: Array, size: int) -> tuple[Array, Array]:
        share = weight * jnp.exp(logits_of(start, size) - total[:, None])
        return carry + share @ rows_of(start, size), jnp.einsum("MV,MR->VR", share, z)

    to_z, to_basis = _over_blocks(step, jnp.zeros_like(z), len(z), logits.shape[-1])
    safe = _safe(targets, vocab_basis)
    return None, to_z - weight * vocab_basis[safe], to_basis.at[safe].add(-weight * z), None


_corrected_nll.defvjp(_corrected_nll_forward, _corrected_nll_backward)
