"""What a family of decoder-only transformers says of itself, so that everything else is written once.

A family is a module with the names of :class:`Family`: its configuration, the shapes and names of its parameters, and
what is its own in the mathematics of a block.  Attention, the scan over blocks, the split, loading and decoding are
shared.  Matrices are [out, in] in memory, whatever the files hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from jaxtyping import Array, Bool, Float, Int

#: Frozen parameters by name.
Weights = Mapping[str, Array]
Cosines = tuple[Float[Array, "T H/2"], Float[Array, "T H/2"]]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers that every family's configuration has.

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
        bos_id: token that the model expects in front of whatever it reads; ``None`` where there is none.
    """

    #: Name of the family, as configurations and manifests have it.
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
        # Of a family that does not derive them from other numbers they are fields, which a property here would hide.
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
        """Tokens that stand in front of whatever the model reads."""
        return () if self.bos_id is None else (self.bos_id,)

    @property
    def query_scale(self) -> float:
        """What queries are multiplied by before they meet keys."""
        return self.head_dim**-0.5


class Places(NamedTuple):
    """What blocks of each kind know of the positions of a sequence."""

    #: Cosines and sines [kind, T, H/2] of rotary positions; ``None`` where positions are part of the embedding.
    angles: tuple[Float[Array, "J T H/2"], Float[Array, "J T H/2"]] | None
    #: How many positions, itself included, a query sees at most, by kind; ``None`` is all of them.
    window: Int[Array, " J"] | None

    def of(self, kind: Int[Array, ""] | int) -> Place:
        """Of one kind of block."""
        angles = None if self.angles is None else (self.angles[0][kind], self.angles[1][kind])
        return Place(angles, None if self.window is None else self.window[kind])


class Place(NamedTuple):
    """:class:`Places` of one block."""

    angles: Cosines | None
    window: Int[Array, ""] | None


class Part(NamedTuple):
    """A tensor of a file within one block, which is some of the rows of a parameter."""

    #: Without the block's own name in front.
    name: str
    rows: int


class Family(Protocol):
    """A module that describes a family."""

    #: Name of a block in a Hugging Face checkpoint, ``{}`` its number.
    BLOCK: str
    #: Parameter outside of the blocks → its Hugging Face name.
    OUTER: Mapping[str, str]
    #: Parameters of a block that files hold as [in, out].
    TRANSPOSED: frozenset[str]
    #: The weight of a norm that scales nothing.
    UNIT_NORM: float

    def tensor_name(self, name: str) -> str | None:
        """What a Hugging Face checkpoint should have called a tensor; ``None`` for what is no part of a text model."""

    def block_shapes(self, config: Any) -> dict[str, tuple[int, ...]]:
        """Shapes of one block's parameters; fused matrices are stacked along ``out``."""

    def outer_shapes(self, config: Any) -> dict[str, tuple[int, ...]]:
        """Shapes of the other parameters; ``unembedding`` only where it is not the embedding."""

    def parts(self, config: Any) -> dict[str, tuple[Part, ...]]:
        """Which tensors of a file, one after the other, are the rows of each parameter of a block."""

    def kinds(self, config: Any) -> tuple[int, ...]:
        """The kind of each block."""

    def places(self, config: Any, positions: Int[Array, " T"]) -> Places:
        """What blocks know of positions."""

    def embed(
        self, config: Any, outer: Weights, tokens: Int[Array, "B T"], positions: Int[Array, "B T"]
    ) -> Float[Array, "B T D"]:
        """The residual stream in front of the first block; ``tokens`` has no padding, ``positions`` count real tokens."""

    def heads(
        self, config: Any, block: Weights, hidden: Float[Array, "T D"], angles: Cosines | None
    ) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"], Float[Array, "T K H"]]:
        """Queries, keys and values of the residual stream, at their places."""

    def add_attention(
        self, config: Any, block: Weights, hidden: Float[Array, "T D"], read: Float[Array, "T N H"]
    ) -> Float[Array, "T D"]:
        """The residual stream and what attention read."""

    def mlp_inner(self, config: Any, block: Weights, hidden: Float[Array, "T D"]) -> Float[Array, "T F"]:
        """What the down-projection of the MLP reads."""

    def add_mlp(
        self, config: Any, block: Weights, hidden: Float[Array, "T D"], projected: Float[Array, "T D"]
    ) -> Float[Array, "T D"]:
        """The residual stream and what the down-projection gave."""

    def final_norm(self, config: Any, outer: Weights, hidden: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """The norm in front of the vocabulary projection."""


def real_positions(real: Bool[Array, "*B T"]) -> Int[Array, "*B T"]:
    """How many real tokens stand before each one; padding in front of a text does not move it."""
    return real.cumsum(-1) - real
