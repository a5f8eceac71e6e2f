"""Tokenize documents and cut them into chunks.

Files of a repository, in path order, are one token sequence ``x``; an end-of-text token separates documents.  With
chunks of C tokens, chunk c reads ``x[C·c … C·c+C−1]`` and is scored on the successors ``x[C·c+1 … C·c+C]``: every
token of a stream except the first is scored exactly once, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int32

PAD_TOKEN = "<|pad|>"


@runtime_checkable
class Tokenizer(Protocol):
    """The part of a model's tokenizer that chunking needs."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def pad_id(self) -> int:
        """Id of ``<|pad|>``: outside the vocabulary, so that no text can contain it."""

    @property
    def eot_id(self) -> int:
        """Id of the end-of-text token between documents."""

    @property
    def digest(self) -> str:
        """Digest that identifies the tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Encode a text without adding special tokens; text that looks like a special token is plain text."""

    def token_bytes(self, ids: list[int]) -> list[int]:
        """Return how many bytes of UTF-8 each token stands for; 0 for the end-of-text token."""


@dataclass(frozen=True)
class Document:
    """A text and its path."""

    path: str
    text: str


@dataclass(frozen=True)
class Stream:
    """The chunks of one repository: N chunks of C tokens."""

    stream_id: str
    language: str
    #: Tokens that each chunk reads; the pad id where nothing is scored.
    input_ids: Int32[np.ndarray, "N C"]
    #: The successor of each token; the pad id where nothing is scored.
    targets: Int32[np.ndarray, "N C"]
    #: True where the target is scored.
    mask: Bool[np.ndarray, "N C"]
    #: Bytes of UTF-8 of the scored tokens of each chunk.  If a byte-level tokenizer splits a character, each token counts
    #: its own bytes; separators count 0.
    n_bytes: Int32[np.ndarray, " N"]
    #: Where each document starts, in tokens from the start of the stream.
    document_starts: Int32[np.ndarray, " M"]
    document_paths: tuple[str, ...]

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return len(self.input_ids)

    @property
    def n_tokens(self) -> Int32[np.ndarray, " N"]:
        """Number of scored tokens of each chunk."""
        return self.mask.sum(axis=1, dtype=np.int32)


@dataclass(frozen=True)
class Tokens:
    """A stream of L tokens and M documents before it is cut."""

    ids: Int32[np.ndarray, " L"]
    n_bytes: Int32[np.ndarray, " L"]
    document_starts: Int32[np.ndarray, " M"]
    document_paths: tuple[str, ...]
    #: Path → reason, for documents left out because their tokens do not stand for exactly their bytes.
    not_lossless: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """A document's tokens, and the bytes that each stands for."""

    path: str
    ids: list[int]
    n_bytes: list[int]
    #: Why the document is left out; None if its tokens stand for exactly its bytes.
    problem: str | None


def encode_document(document: Document, tokenizer: Tokenizer) -> Encoded:
    """Tokenise a document; its problem says why it must be left out, since bits per byte would have no meaning."""
    ids = tokenizer.encode(document.text)
    sizes = tokenizer.token_bytes(ids)
    problem = None
    if not ids or sum(sizes) != len(document.text.encode()) or tokenizer.eot_id in ids:
        problem = _loss(document.text, ids, sum(sizes), tokenizer)
    return Encoded(document.path, ids, sizes, problem)


def join_documents(encoded: Iterable[Encoded], eot_id: int, max_tokens: int | None = None) -> Tokens:
    """Concatenate documents without a problem, separated by the end-of-text token, up to ``max_tokens``.

    Documents after that are not taken from ``encoded``.
    """
    ids: list[int] = []
    n_bytes: list[int] = []
    starts: list[int] = []
    paths: list[str] = []
    not_lossless: dict[str, str] = {}
    for document in encoded:
        if document.problem is not None:
            not_lossless[document.path] = document.problem
        else:
            if ids:
                ids.append(eot_id)
                n_bytes.append(0)
            starts.append(len(ids))
            paths.append(document.path)
            ids += document.ids
            n_bytes += document.n_bytes
        if max_tokens is not None and len(ids) >= max_tokens:
            break
    kept = slice(0, max_tokens)
    # If the separator is the last token, the document after it is not part of the stream.
    inside = [start for start in starts if max_tokens is None or start < max_tokens]
    return Tokens(
        np.asarray(ids[kept], np.int32),
        np.asarray(n_bytes[kept], np.int32),
        np.asarray(inside, np.int32),
        tuple(paths[: len(inside)]),
        not_lossless,
    )


def tokenize_documents(
    documents: Iterable[Document], tokenizer: Tokenizer, max_tokens: int | None = None
) -> Tokens:
    """Tokenise and concatenate documents up to ``max_tokens``; those after that are not tokenised.

    A document is left out if its tokens do not stand for exactly its bytes.
    """
    encoded = (encode_document(document, tokenizer) for document in documents)
    return join_documents(encoded, tokenizer.eot_id, max_tokens)


def _loss(text: str, encoded: list[int], n_bytes: int, tokenizer: Tokenizer) -> str:
    """Say why tokens do not stand for a text."""
    if not text:
        return "empty"
    if tokenizer.eot_id in encoded:
        return "contains the model's end-of-text token, which the tokenizer recognises in a text"
    for character in sorted(set(text)):
        if sum(tokenizer.token_bytes(tokenizer.encode(character))) != len(character.encode()):
            name = f"{character!r} (U+{ord(character):04X})"
            return f"contains {name}, which the model's tokenizer does not give back"
    return f"the tokens of its {len(text.encode())} bytes stand for {n_bytes} bytes"


def cut_chunks(tokens: Tokens, chunk_size: int, pad_id: int, stream_id: str, language: str) -> Stream:
    """Cut L tokens into ⌈(L−1)/C⌉ chunks; only the last one may hold padding.

    A stream of fewer than two tokens has no chunk, since nothing can be scored.
    """
    scored = max(0, len(tokens.ids) - 1)
    n_chunks = -(-scored // chunk_size)
    shape = (n_chunks, chunk_size)
    input_ids = np.full(n_chunks * chunk_size, pad_id, np.int32)
    targets = np.full(n_chunks * chunk_size, pad_id, np.int32)
    target_bytes = np.zeros(n_chunks * chunk_size, np.int32)
    mask = np.zeros(n_chunks * chunk_size, bool)
    input_ids[:scored] = tokens.ids[:scored]
    targets[:scored] = tokens.ids[1 : scored + 1]
    target_bytes[:scored] = tokens.n_bytes[1 : scored + 1]
    mask[:scored] = True
    return Stream(
        stream_id=stream_id,
        language=language,
        input_ids=input_ids.reshape(shape),
        targets=targets.reshape(shape),
        mask=mask.reshape(shape),
        n_bytes=target_bytes.reshape(shape).sum(axis=1, dtype=np.int32),
        document_starts=tokens.document_starts,
        document_paths=tokens.document_paths,
    )
