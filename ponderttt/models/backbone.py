"""A frozen model ready to use: compiled ``prefix``, ``suffix``, ``hidden`` and ``unembed`` over explicit parameters."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from ponderttt.errors import PonderTTTError
from ponderttt.models import tensors
from ponderttt.models.decoder import Decoder
from ponderttt.models.families.family import Shape
from ponderttt.models.quantised import EXACT, Precision, by_rows, opened
from ponderttt.models.tokenizer import Tokenizer


@partial(jax.jit, static_argnums=(0, 3))
def _hidden(graph: Any, params: Any, tokens: Array, keep_last: int | None) -> Array:
    return nnx.merge(graph, params).hidden(tokens, keep_last)


@partial(jax.jit, static_argnums=0)
def _prefix(graph: Any, params: Any, tokens: Array) -> Array:
    return nnx.merge(graph, params).prefix(tokens)


@partial(jax.jit, static_argnums=(0, 4))
def _suffix(graph: Any, params: Any, hidden: Array, mask: Array, keep_last: int | None) -> Array:
    return nnx.merge(graph, params).suffix(hidden, mask, keep_last)


@partial(jax.jit, static_argnums=0)
def _unembed(graph: Any, params: Any, hidden: Array) -> Array:
    return nnx.merge(graph, params).unembed(hidden)


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen language model.

    Attributes:
        config: its shape.
        split_layer: number of blocks in the prefix.
        graph: static part of the NNX module (hashable); ``nnx.merge(graph, params)`` is the module.
        params: the parameters, a pytree of arrays.
        digest: sha256 of all parameter bytes, see :func:`~ponderttt.models.tensors.model_digest`.
        tokenizer: its tokenizer; ``None`` for a random model.
    """

    config: Shape
    split_layer: int
    graph: Any
    params: Any
    digest: str
    tokenizer: Tokenizer | None = None
    mesh: Mesh | None = None

    def on_devices(self) -> AbstractContextManager[Any]:
        """Return a context in which programs run on the devices that share the model."""
        return nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def hidden(
        self, tokens: Int[Array | np.ndarray, "B T"], keep_last: int | None = None
    ) -> Float[Array, "B S D"]:
        """Return final normed hidden states, float32, of the last ``keep_last`` positions (all by default).

        Token t attends to tokens 0 … t of its row and to no padding (id ``vocab_size``).

        Raises:
            PonderTTTError: more tokens than fit the model's context.
        """
        self._check_length(tokens)
        return _hidden(self.graph, self.params, tokens, keep_last)

    def prefix(self, tokens: Int[Array | np.ndarray, "B T"]) -> Float[Array, "B T D"]:
        """Return the residual stream after ``split_layer`` blocks, float32."""
        self._check_length(tokens)
        return _prefix(self.graph, self.params, tokens)

    def suffix(
        self,
        hidden: Float[Array | np.ndarray, "B T D"],
        mask: Bool[Array | np.ndarray, "B T"] | None = None,
        keep_last: int | None = None,
    ) -> Float[Array, "B S D"]:
        """Run the blocks after the split and the final norm; ``mask`` is False where ``prefix`` read padding."""
        if mask is None:
            mask = jnp.ones(hidden.shape[:2], dtype=bool)
        return _suffix(self.graph, self.params, hidden, mask, keep_last)

    def unembed(self, hidden: Float[Array | np.ndarray, "*B D"]) -> Float[Array, "*B V"]:
        """Return logits over the vocabulary, float32; the pad id has none."""
        return _unembed(self.graph, self.params, hidden)

    def _check_length(self, tokens: Int[Array | np.ndarray, "B T"]) -> None:
        length, limit = tokens.shape[-1], self.config.max_context
        if length > limit:
            raise PonderTTTError(
                f"{length} tokens do not fit the model's context of {limit}; read fewer at a time"
            )

    @cached_property
    def unembedding(self) -> Float[Array, "V D"]:
        """The matrix of :meth:`unembed`, float32."""
        return opened(self.stored_unembedding).astype(jnp.float32)

    @property
    def stored_unembedding(self) -> Any:
        """The matrix of :meth:`unembed` as it is stored, for programs that open some rows at a time.

        See :func:`~ponderttt.models.quantised.by_rows`.
        """
        return by_rows(nnx.merge(self.graph, self.params).unembedding_matrix())


def make_backbone(
    model: Decoder,
    tokenizer: Tokenizer | None = None,
    digest: str | None = None,
    mesh: Mesh | None = None,
) -> Backbone:
    """Split a model into graph and parameters; ``digest`` is computed unless it is given."""
    graph, params = nnx.split(model)
    return Backbone(
        model.config,
        model.split_layer,
        graph,
        params,
        digest or tensors.model_digest(graph, params),
        tokenizer,
        mesh,
    )


def random_backbone(
    config: Shape,
    key: jax.Array,
    split_layer: int | None = None,
    precision: Precision = EXACT,
    mesh: Mesh | None = None,
) -> Backbone:
    """Return a model with random weights, for tests and speed measurements."""
    checkpoint = tensors.in_memory(config, tensors.random_tensors(config, key))
    return make_backbone(tensors.assemble(checkpoint, precision, split_layer, mesh), mesh=mesh)
