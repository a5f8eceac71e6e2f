"""Contexts: what the backbone attends to while it reads a chunk.

| name | the chunk attends to | how it is read |
|---|---|---|
| ``alone`` | itself | the chunk |
| ``window_n`` | the n chunks before it, and the stream's first tokens | keys and values of these stay in a cache |
| ``full`` | all of its stream, up to the model's limit | the same |
| ``context_n`` | the n chunks before it | these chunks are read again with it |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast, get_args

Kind = Literal["alone", "context", "window", "full"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Pattern of all names but ``alone``.
PATTERN = r"full|window_[1-9]\d*|context_[1-9]\d*"


@dataclass(frozen=True)
class Context:
    """A context.

    Attributes:
        kind: the name without its number.
        chunks: n of ``window_n`` and ``context_n``; 0 for the others.
    """

    kind: Kind
    chunks: int = 0

    @classmethod
    def parse(cls, text: str) -> Context:
        """Parse a name.

        Raises:
            ValueError: not the name of a context; the message says what is.
        """
        kind, _, number = text.partition("_")
        if text in ("alone", "full"):
            return cls(cast(Kind, text))
        if kind in ("window", "context") and re.fullmatch(r"[1-9]\d*", number):
            return cls(cast(Kind, kind), int(number))
        raise ValueError(f"unknown context '{text}'; use alone, full, window_n or context_n with n from 1 on")

    def __str__(self) -> str:
        return f"{self.kind}_{self.chunks}" if self.chunks else self.kind

    @property
    def order(self) -> tuple[int, int]:
        """Place in tables: the less a chunk sees, the earlier."""
        return (KINDS.index(self.kind), self.chunks)

    @property
    def is_cached(self) -> bool:
        """Whether keys and values of earlier chunks are kept instead of being computed again."""
        return self.kind in ("window", "full")


ALONE = Context("alone")
FULL = Context("full")
