"""``ponderttt complete``: continue a file, with fast weights that learn from it and from a repository."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ponderttt.cli.reader import Reader, Request, open_reader
from ponderttt.cli.score import language_of, name_by_content, named, read_documents, tokenized
from ponderttt.corpus.streams import Document, Tokenizer, tokenize_documents
from ponderttt.errors import PonderTTTError

if TYPE_CHECKING:
    from ponderttt.decoding.adaptive import Source
    from ponderttt.decoding.sampling import Sampling
    from ponderttt.records.step import Step

#: Most tokens of a continuation, since room for all its chunks is made at the start.
MOST_TOKENS = 1_000_000


@dataclass(frozen=True)
class Continuation:
    """How a text is continued.

    Attributes:
        max_tokens: tokens to write at most.
        sampling: how each token is drawn.
        stops: strings before which the text ends.
    """

    max_tokens: int
    sampling: Sampling
    stops: tuple[str, ...] = ()


@dataclass
class Summary:
    """Counts for the user."""

    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0


def complete_text(
    prompt: str,
    file: Path,
    repository: Sequence[Path],
    request: Request,
    continuation: Continuation,
    notice: Callable[[str], None],
    chunk_read: Callable[[Step], None] = lambda step: None,
    summary: Summary | None = None,
) -> Iterator[str]:
    """Continue a text.

    Args:
        prompt: the text.
        file: the file of the text; its name gives the language, unless it is ``-``.
        repository: files and folders to read before the text.
        request: what to read with, and how.
        continuation: how to continue.
        notice: receives messages for the user.
        chunk_read: receives the step of each chunk once it is scored and learned from.
        summary: counts to fill in as the text grows.

    Yields:
        Pieces of text as they are written: whole characters, and nothing of a stop string.

    Raises:
        PonderTTTError: an empty prompt or stop string, a setting out of range, a text beyond the model's context, or any
            error of :func:`open_reader`.
    """
    from ponderttt.decoding.text import TextStream, check_stops

    check_stops(continuation.stops)
    if not 1 <= continuation.max_tokens <= MOST_TOKENS:
        raise PonderTTTError(f"max_tokens must be from 1 to {MOST_TOKENS}, got {continuation.max_tokens}")
    if not prompt:
        raise PonderTTTError("the prompt is empty; there is nothing to continue")
    documents = [document for path in repository for document in read_documents(path, notice)]
    reader = open_reader(request, notice)
    tokenizer = reader.backbone.tokenizer
    assert tokenizer is not None
    ids, source = prompted(documents, Document(file.name, prompt), str(file), tokenizer, notice)
    summary = summary or Summary()
    summary.prompt_tokens = len(ids)
    ends = tokenizer.end_ids
    tokens = (
        _frozen(reader, ids, continuation, ends)
        if reader.module is None
        else _adaptive(reader, ids, source, continuation, ends, chunk_read)
    )
    text = TextStream(tokenizer.decode, continuation.stops)
    begin = None
    for token in tokens:
        # The first token waits for the prompt and for compilation.
        begin = time.perf_counter() if begin is None else begin
        summary.tokens, summary.seconds = summary.tokens + 1, time.perf_counter() - begin
        if piece := text.push(token):
            yield piece
        if text.stopped:
            return
    if piece := text.flush():
        yield piece


def prompted(
    documents: Sequence[Document],
    last: Document,
    name: str,
    tokenizer: Tokenizer,
    notice: Callable[[str], None],
) -> tuple[list[int], Source]:
    """Return the tokens to read before a continuation and what they are: the stream that ``ponderttt score`` makes.

    Args:
        documents: documents of the repository.
        last: the document to continue.
        name: path of the last document, for messages.
        tokenizer: the model's tokenizer.
        notice: receives the documents that are left out.

    Raises:
        PonderTTTError: the tokenizer does not restore the last document exactly.
    """
    from ponderttt.decoding.adaptive import Source

    continued = tokenize_documents([last], tokenizer)
    for reason in continued.not_lossless.values():
        raise PonderTTTError(f"{name}: {reason}")
    before = tokenized(documents, tokenizer, notice)
    ids = before.ids.tolist()
    ids += [tokenizer.eot_id] if ids else []
    language = language_of([last])
    ids += continued.ids.tolist()
    return ids, Source(
        name_by_content(ids),
        language_of(documents) if language == "any" else language,
        (*before.document_starts.tolist(), len(ids) - len(continued.ids)),
        (*before.document_paths, last.path),
    )


def _frozen(
    reader: Reader, ids: list[int], continuation: Continuation, ends: frozenset[int]
) -> Iterator[int]:
    """Yield tokens with the whole text as the model's context."""
    from ponderttt.decoding.generate import Generator

    generator = Generator(reader.backbone)
    for found in generator.tokens([ids], [continuation.sampling], continuation.max_tokens, ends):
        yield found.token


def _adaptive(
    reader: Reader,
    ids: list[int],
    source: Source,
    continuation: Continuation,
    ends: frozenset[int],
    chunk_read: Callable[[Step], None],
) -> Iterator[int]:
    """Yield tokens chunk by chunk: the fast weights hold what came before the current chunk and its context."""
    from ponderttt.decoding.adaptive import AdaptiveText
    from ponderttt.decoding.sampling import Chooser
    from ponderttt.frozen.model import FrozenModel

    assert reader.module is not None
    text = AdaptiveText(
        FrozenModel(reader.backbone, rehearse=False),
        reader.module,
        reader.method,
        reader.spending,
        chunk_size=reader.chunk_size,
        context=reader.context,
        ends=reader.ends,
        max_tokens=len(ids) + continuation.max_tokens,
        suffix=reader.suffix,
        seed=reader.seed,
        source=source,
    )
    for step in text.read(ids):
        chunk_read(named(step, source.document_paths[-1]))
    choose = Chooser(continuation.sampling)
    for _ in range(continuation.max_tokens):
        token = choose(text.next_token())
        if token in ends:
            return
        yield token
        for step in text.read([token]):
            chunk_read(named(step, source.document_paths[-1]))
