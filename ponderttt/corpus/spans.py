"""Choose the part of a repository that a stream of limited length reads.

The first files in path order are often initialisers and command lines, so a span starts at a file that is drawn.  It
continues in path order.  If what follows is too short, it starts earlier: a span never wraps around.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence

from ponderttt.corpus.streams import Document, Encoded, Tokenizer, Tokens, encode_document, join_documents


def drawn_file(span_seed: int, repository: str, files: int) -> int:
    """Return the number of a file, uniform over ``files``; the same for a seed and a name on every machine."""
    digest = hashlib.sha256(f"{span_seed}/{repository}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % files


def tokenize_span(documents: Sequence[Document], tokenizer: Tokenizer, max_tokens: int, drawn: int) -> Tokens:
    """Tokenise ``max_tokens`` from document ``drawn`` on, or from as few documents before it as fill them.

    Documents outside of the span are not tokenised.  A document is left out if its tokens do not stand for exactly its bytes.
    """
    span: deque[Encoded] = deque()
    # One separator less than documents.
    length = -1
    after = range(drawn, len(documents))
    before = range(drawn - 1, -1, -1)
    for append, numbers in ((span.append, after), (span.appendleft, before)):
        for number in numbers:
            if length >= max_tokens:
                break
            encoded = encode_document(documents[number], tokenizer)
            append(encoded)
            length += len(encoded.ids) + 1 if encoded.problem is None else 0
    return join_documents(span, tokenizer.eot_id, max_tokens)
