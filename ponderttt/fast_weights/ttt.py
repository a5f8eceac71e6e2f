"""TTT-Linear on the final hidden state: an inner linear model per head, trained by reconstruction.

Sun et al. 2024, "Learning to (Learn at Test Time)", arXiv:2407.04620.  Each head holds W [K, K] and b [K]; the
inner model ``f(x) = x + LN(x·W + b)`` learns to reconstruct the value of token s from its key:

    ℓ_s(W, b) = ½ ‖LN(k_s·W + b) − (v_s − k_s)‖²

All n tokens of a mini-batch take their gradients at the weights before it, so that after token t

    W_t = W₀ − Σ_{s≤t} η_s · k_sᵀ g_s,      b_t = b₀ − Σ_{s≤t} η_s · g_s,      g_s = ∂ℓ_s/∂(k_s·W₀ + b₀)

The dual form reads with W_t without forming it.  The inner loss has no next-token label.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ponderttt.fast_weights.base import Adaptation, Chunk, HiddenCorrection, Readout, masked_mean
from ponderttt.settings.fast_weights import TTTConfig

NORM_EPSILON = 1e-6
#: Largest norm of one token's gradient [k_s; 1]ᵀ g_s, divided by the head width, to which it is proportional.  Typical
#: gradients are below half of it (tested).  Clipping token by token keeps the in-chunk read causal.
TOKEN_GRADIENT_LIMIT = 4.0


class TTTFast(NamedTuple):
    """The inner model of each head."""

    weight: Float[Array, "H K K"]
    bias: Float[Array, "H K"]


class InnerInputs(NamedTuple):
    """Inputs of the inner model."""

    query: Float[Array, "T H K"]
    key: Float[Array, "T H K"]
    value: Float[Array, "T H K"]
    #: Inner rate of each token, 0 where masked.
    rate: Float[Array, "T H"]


def normalise(x: Float[Array, "... K"]) -> Float[Array, "... K"]:
    """Scale to zero mean and unit variance over the last axis."""
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + NORM_EPSILON)


def causal_depthwise_conv(
    x: Float[Array, "T C"], kernel: Float[Array, "W C"], bias: Float[Array, " C"]
) -> Float[Array, "T C"]:
    """Return each channel's weighted sum of the last W positions, *including the current one*; zeros before the start."""
    width = kernel.shape[0]
    padded = jnp.pad(x, ((width - 1, 0), (0, 0)))
    return sum((padded[i : i + x.shape[0]] * kernel[i] for i in range(width)), bias)


class TTTLayer(HiddenCorrection):
    """TTT-Linear with H heads of width K; its output is gated, then projected by a matrix that starts at zero."""

    reads_in_chunk = True
    basis_is_fast = False

    def __init__(self, width: int, config: TTTConfig, *, rngs: nnx.Rngs) -> None:
        """Initialise for hidden states of ``width`` D."""
        heads, head_dim = config.heads, config.head_dim
        inner = heads * head_dim
        self.config = config

        def normal(shape: tuple[int, ...], scale: float) -> nnx.Param:
            return nnx.Param(scale * jax.random.normal(rngs.params(), shape, jnp.float32))

        self.input_scale = nnx.Param(jnp.ones(width))
        # Queries and keys share a projection and differ by their convolutions (TTT-LM, appendix).
        self.query_key = normal((width, inner), width**-0.5)
        self.value = normal((width, inner), width**-0.5)
        self.gate = normal((width, inner), width**-0.5)
        self.rate = normal((width, heads), width**-0.5)
        self.rate_bias = nnx.Param(jnp.zeros(heads))
        # The current token's tap is the last.  Queries start at the current token and keys at the one before it, so that
        # the inner model starts as a memory of successors: value of token s under the key of token s−1.
        taps = jnp.zeros((config.conv_width, inner))
        noise = [0.02 * jax.random.normal(rngs.params(), taps.shape) for _ in range(2)]
        self.query_kernel = nnx.Param(taps.at[-1].set(1.0) + noise[0])
        self.key_kernel = nnx.Param(taps.at[-min(2, config.conv_width)].set(1.0) + noise[1])
        self.query_bias = nnx.Param(jnp.zeros(inner))
        self.key_bias = nnx.Param(jnp.zeros(inner))
        self.norm_scale = nnx.Param(jnp.ones((heads, head_dim)))
        self.norm_bias = nnx.Param(jnp.zeros((heads, head_dim)))
        # Scaled for outputs of about unit variance: a smaller scale makes the gradient of the layer norm huge.
        self.weight = normal((heads, head_dim, head_dim), head_dim**-0.5)
        self.bias = nnx.Param(jnp.zeros((heads, head_dim)))
        self.output_scale = nnx.Param(jnp.ones(inner))
        self.output = nnx.Param(jnp.zeros((width, inner)))

    def reset(self) -> TTTFast:
        """Return the learned initial inner model."""
        return TTTFast(self.weight[...], self.bias[...])

    def basis(self, fast: TTTFast) -> Float[Array, "D R"]:
        """Return the output projection, a slow weight."""
        return self.output[...]

    def inner_inputs(self, hidden: Float[Array, "T D"], mask: Bool[Array, " T"]) -> InnerInputs:
        """Return queries, keys, values and rates of each token; the convolution restarts in each chunk."""
        split = (hidden.shape[0], self.config.heads, self.config.head_dim)
        x = self._normalised(hidden)
        shared = x @ self.query_key[...]
        query = causal_depthwise_conv(shared, self.query_kernel[...], self.query_bias[...])
        key = causal_depthwise_conv(shared, self.key_kernel[...], self.key_bias[...])
        rate = jax.nn.sigmoid(x @ self.rate[...] + self.rate_bias[...])
        rate = rate * (self.config.base_inner_rate / (self.config.head_dim * self.config.mini_batch))
        return InnerInputs(
            query.reshape(split),
            key.reshape(split),
            (x @ self.value[...]).reshape(split),
            jnp.where(mask[:, None], rate, 0.0),
        )

    def correction(self, fast: TTTFast, hidden: Float[Array, "T D"]) -> Float[Array, "T R"]:
        """Read every token with the same fast weights."""
        everything = jnp.ones(hidden.shape[0], bool)
        query = self.inner_inputs(hidden, everything).query
        linear = jnp.einsum("THK,HKF->THF", query, fast.weight) + fast.bias
        return self._gated(query + self._head_norm(linear), hidden)

    def adapt(self, fast: TTTFast, chunk: Chunk, readout: Readout, steps: int) -> Adaptation:
        """Make ``steps`` passes of mini-batch inner steps over the chunk; labels and readout are not used."""
        inputs = self.inner_inputs(chunk.hidden, chunk.mask)
        batches = self._mini_batches(inputs)

        def inner_step(carry: TTTFast, batch: InnerInputs) -> tuple[TTTFast, None]:
            gradient, _ = self.inner_gradient(carry, batch)
            return self._after(carry, batch, gradient), None

        def one_pass(carry: tuple[TTTFast, Array], _: None) -> tuple[tuple[TTTFast, Array], None]:
            before, count = carry
            after, _ = jax.lax.scan(inner_step, before, batches)
            return (after, count + 1), None

        inner_loss = self._inner_loss(fast, inputs, chunk.mask)
        (fast, count), _ = jax.lax.scan(one_pass, (fast, jnp.zeros((), jnp.int32)), length=steps)
        return Adaptation(fast, inner_loss, count)

    def reconstruction(self, fast: TTTFast, chunk: Chunk) -> Float[Array, ""]:
        """Return the inner loss per real token, summed over heads."""
        return self._inner_loss(fast, self.inner_inputs(chunk.hidden, chunk.mask), chunk.mask)

    def score_and_adapt_in_chunk(
        self, fast: TTTFast, chunk: Chunk, readout: Readout
    ) -> tuple[Float[Array, " T"], Adaptation]:
        """Pass once over the chunk, reading token t after the inner steps of tokens ≤ t (the dual form)."""
        inputs = self.inner_inputs(chunk.hidden, chunk.mask)

        def read_and_step(carry: TTTFast, batch: InnerInputs) -> tuple[TTTFast, Float[Array, "N H K"]]:
            gradient, _ = self.inner_gradient(carry, batch)
            return self._after(carry, batch, gradient), self.dual_read(carry, batch, gradient)

        inner_loss = self._inner_loss(fast, inputs, chunk.mask)
        after, linear = jax.lax.scan(read_and_step, fast, self._mini_batches(inputs))
        linear = linear.reshape(-1, *linear.shape[2:])[: chunk.hidden.shape[0]]
        correction = self._gated(inputs.query + self._head_norm(linear), chunk.hidden)
        nll = self._nll(correction, fast, chunk, readout)
        return nll, Adaptation(after, inner_loss, jnp.asarray(1, jnp.int32))

    def inner_gradient(
        self, fast: TTTFast, inputs: InnerInputs
    ) -> tuple[Float[Array, "T H K"], Float[Array, "T H"]]:
        """Return g_s of every token at the same fast weights, clipped token by token, and ℓ_s."""

        def losses(linear: Float[Array, "T H K"]) -> Float[Array, "T H"]:
            error = self._head_norm(linear) - (inputs.value - inputs.key)
            return 0.5 * jnp.sum(jnp.square(error), axis=-1)

        linear = jnp.einsum("THK,HKF->THF", inputs.key, fast.weight) + fast.bias
        value, pull_back = jax.vjp(losses, linear)
        (gradient,) = pull_back(jnp.ones_like(value))
        # The gradient of (W, b) for one token is [k_s; 1]ᵀ g_s, whose norm is the product of the two norms.
        squared = (1.0 + jnp.sum(jnp.square(inputs.key), -1)) * jnp.sum(jnp.square(gradient), -1)
        limit = TOKEN_GRADIENT_LIMIT * self.config.head_dim
        scale = jnp.minimum(1.0, limit * jax.lax.rsqrt(squared + NORM_EPSILON))
        return gradient * scale[..., None], value

    def dual_read(
        self, fast: TTTFast, batch: InnerInputs, gradient: Float[Array, "N H K"]
    ) -> Float[Array, "N H K"]:
        """Return ``q_t·W_t + b_t`` for each token of a mini-batch, without forming W_t."""
        rated = batch.rate[..., None] * gradient
        similarity = jnp.einsum("NHK,MHK->HNM", batch.query, batch.key) + 1.0
        causal = jnp.tril(jnp.ones(similarity.shape[-2:], similarity.dtype))
        learned = jnp.einsum("HNM,MHK->NHK", similarity * causal, rated)
        return jnp.einsum("NHK,HKF->NHF", batch.query, fast.weight) + fast.bias - learned

    def _inner_loss(self, fast: TTTFast, inputs: InnerInputs, mask: Bool[Array, " T"]) -> Float[Array, ""]:
        """Return the reconstruction loss per real token, summed over heads, at the given fast weights."""
        _, losses = self.inner_gradient(fast, inputs)
        return masked_mean(jnp.sum(losses, axis=-1), mask)

    def _after(self, fast: TTTFast, batch: InnerInputs, gradient: Float[Array, "N H K"]) -> TTTFast:
        rated = batch.rate[..., None] * gradient
        return TTTFast(
            fast.weight - jnp.einsum("NHK,NHF->HKF", batch.key, rated), fast.bias - jnp.sum(rated, axis=0)
        )

    def _mini_batches(self, inputs: InnerInputs) -> InnerInputs:
        """Reshape [T, …] to [T/n, n, …]; a short last mini-batch is filled with tokens of rate 0."""
        size = self.config.mini_batch

        def split(x: Float[Array, "T ..."]) -> Float[Array, "M N ..."]:
            missing = -x.shape[0] % size
            x = jnp.pad(x, ((0, missing),) + ((0, 0),) * (x.ndim - 1))
            return x.reshape(-1, size, *x.shape[1:])

        return jax.tree.map(split, inputs)

    def _normalised(self, hidden: Float[Array, "T D"]) -> Float[Array, "T D"]:
        mean_square = jnp.mean(jnp.square(hidden), axis=-1, keepdims=True)
        return hidden * jax.lax.rsqrt(mean_square + NORM_EPSILON) * self.input_scale[...]

    def _head_norm(self, linear: Float[Array, "T H K"]) -> Float[Array, "T H K"]:
        return normalise(linear) * self.norm_scale[...] + self.norm_bias[...]

    def _gated(self, read: Float[Array, "T H K"], hidden: Float[Array, "T D"]) -> Float[Array, "T R"]:
        gate = jax.nn.gelu(self._normalised(hidden) @ self.gate[...])
        return normalise(read.reshape(gate.shape)) * self.output_scale[...] * gate
