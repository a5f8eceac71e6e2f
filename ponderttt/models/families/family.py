"""The interface of a family of decoder-only transformers.

A family is a module with the names of :class:`Family`: its configuration, the shapes and names of its parameters, and
its own parts of a block.  All families share attention, the scan over blocks, the split, loading and decoding.
Matrices are [out, in] in memory, even if the files hold [in, out].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int

#: Frozen parameters of a block by name.
Weights = Mapping[str, Array]
#: Frozen parameters outside of the blocks by name, as they are stored: a matrix may be quantised.
Stored = Mapping[str, Any]
#: Cosines and sines of the P = H/2 pairs of a head, at T positions or at one that all share.
Cosines = tuple[Float[Array, "#T P"], Float[Array, "#T P"]]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The shape of a model: numbers that all families have.

    Attributes:
        vocab_size: rows of the embedding and of the unembedding (V); the pad id is ``vocab_size`` itself.
        layers: number of blocks.
        width: size of the hidden state (D).
        heads: query heads (N).
        kv_heads: key and value heads (K), each shared by ``heads // kv_heads`` query heads.
        head_dim: size of a head (H).
        mlp_width: inner size of the MLP (F).
        norm_eps: added to the mean square (or the variance) in a norm.
        max_context: longest input that the model was trained for, in tokens.
        tied: the unembedding is the embedding.
        bos_id: token that the model expects before every text; ``None`` if it expects none.
    """

    #: Name of the family in configurations and manifests.
    family: ClassVar[str]

    vocab_size: int
    layers: int
    width: int
    heads: int
    mlp_width: int
    norm_eps: float
    max_context: int
    tied: bool
    bos_id: int | None = None

    if TYPE_CHECKING:
        # Fields in some families, properties in others; a property here would hide the fields.
        @property
        def kv_heads(self) -> int: ...

        @property
        def head_dim(self) -> int: ...

    @property
    def pad_id(self) -> int:
        """The dedicated pad token: the next id after the vocabulary."""
        return self.vocab_size

    @property
    def front(self) -> tuple[int, ...]:
        """Tokens before every text that the model reads."""
        return () if self.bos_id is None else (self.bos_id,)

    @property
    def query_scale(self) -> float:
        """Factor of queries before the product with keys."""
        return self.head_dim**-0.5


class Places(NamedTuple):
    """The positions of a sequence as blocks of each kind see them."""

    #: Cosines and sines of rotary positions by kind; ``None`` if positions are part of the embedding.
    angles: tuple[Float[Array, "J T P"], Float[Array, "J T P"]] | None
    #: Most positions that a query sees, its own included, by kind; ``None`` is all of them.
    window: Int[Array, " J"] | None

    def of(self, kind: Int[Array, ""] | int) -> Place:
        """Return the positions for one kind of block."""
        angles = None if self.angles is None else (self.angles[0][kind], self.angles[1][kind])
        return Place(angles, None if self.window is None else self.window[kind])


class Place(NamedTuple):
    """:class:`Places` of one block."""

    angles: Cosines | None
    window: Int[Array, ""] | None


class Part(NamedTuple):
    """A tensor of one block in a file: some of the rows of a parameter."""

    #: Without the name of the block.
    name: str
    rows: int


@runtime_checkable
class Family(Protocol):
    """A module that describes a family."""

    #: Name of a block in a Hugging Face checkpoint, ``{}`` its number.
    BLOCK: str
    #: Parameter outside of the blocks → its Hugging Face name.
    OUTER: Mapping[str, str]
    #: Parameters of a block that files hold as [in, out].
    TRANSPOSED: frozenset[str]
    #: Weight of a norm that does not scale.
    UNIT_NORM: float

    def tensor_name(self, name: str) -> str | None:
        """Return the usual Hugging Face name of a tensor; ``None`` for one that is not part of a text model."""

    def block_shapes(self, config: Any) -> dict[str, tuple[int, ...]]:
        """Return shapes of one block's parameters; fused matrices are stacked along ``out``."""

    def outer_shapes(self, config: Any) -> dict[str, tuple[int, ...]]:
        """Return shapes of the other parameters; ``unembedding`` only if it is not the embedding."""

    def parts(self, config: Any) -> dict[str, tuple[Part, ...]]:
        """Return the tensors of a file whose joined rows are each parameter of a block."""

    def kinds(self, config: Any) -> tuple[int, ...]:
        """Return the kind of each block."""

    def places(self, config: Any, positions: Int[Array, " T"]) -> Places:
        """Return positions as blocks see them."""

    def embed(
        self, config: Any, outer: Stored, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """Return the residual stream before the first block; ``tokens`` has no padding, ``positions`` count real tokens."""

    def heads(
        self, config: Any, block: Weights, hidden: Float[Array, "T D"], angles: Cosines | None
    ) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"], Float[Array, "T K H"]]:
        """Return queries, keys and values of the residual stream, with their positions, float32."""

    def add_attention(
        self, config: Any, block: Weights, hidden: Float[Array, "T D"], read: Float[Array, "T N H"]
    ) -> Float[Array, "T D"]:
        """Return the residual stream with the output of attention added."""

    def mlp_inner(self, config: Any, block: Weights, hidden: Float[Array, "T D"]) -> Float[Array, "T F"]:
        """Return the input of the MLP's down-projection."""

    def add_mlp(
        self, config: Any, block: Weights, hidden: Float[Array, "T D"], projected: Float[Array, "T D"]
    ) -> Float[Array, "T D"]:
        """Return the residual stream with the output of the down-projection added."""

    def final_norm(self, config: Any, outer: Stored, hidden: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Apply the norm before the vocabulary projection."""


def real_positions(real: Bool[Array, "*B T"]) -> Int[Array, "*B T"]:
    """Return the number of real tokens before each one; padding before a text does not count."""
    return real.cumsum(-1) - real
