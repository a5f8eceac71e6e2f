"""Eight measures of a chunk's text as code, from the lexer of its language."""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from pygments.lexer import Lexer

#: Names of the values of :func:`code_metrics`, in their order.
CODE_METRICS = (
    "distinct_token_ratio",
    "repetition",
    "identifier_share",
    "keyword_share",
    "indent_share",
    "bracket_depth",
    "compressibility",
    "comment_share",
)
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)
#: For languages without a lexer: words, and every other visible character by itself.
_PLAIN = re.compile(r"(\w+)|[^\w\s]")


def code_metrics(text: str, language: str) -> Float[np.ndarray, " 8"]:
    """Return the features of group ``code``, in the order of :data:`CODE_METRICS`; in 0..1, all 0 for an empty text.

    Args:
        text: text of one chunk; it may begin and end anywhere in a file.
        language: name of the language, such as ``Python``; if no lexer has that name, all words are identifiers and
            nothing is a keyword or a comment.
    """
    if not text.strip():
        return np.zeros(len(CODE_METRICS))
    words, names, keywords, comments = _tokens(text, language)
    raw = text.encode()
    return np.array(
        [
            len(set(words)) / max(len(words), 1),
            _repetition(words),
            names / max(len(words), 1),
            keywords / max(len(words), 1),
            sum(len(run) for run in _INDENT.findall(text)) / len(text),
            _bracket_depth(words),
            min(1.0, len(zlib.compress(raw)) / len(raw)),
            comments / len(text),
        ]
    )


def _tokens(text: str, language: str) -> tuple[list[str], int, int, int]:
    """Return the visible lexical tokens, the numbers of names and keywords, and of characters in comments and docstrings."""
    lexer = _lexer(language)
    if lexer is None:
        found = list(_PLAIN.finditer(text))
        return [match[0] for match in found], sum(match[1] is not None for match in found), 0, 0
    words, names, keywords, comments = [], 0, 0, 0
    for _, kind, value in lexer.get_tokens_unprocessed(text):
        role = _role(kind)
        comments += len(value) if role == "comment" else 0
        if value.isspace() or not value:
            continue
        words.append(value)
        names += role == "name"
        keywords += role == "keyword"
    return words, names, keywords, comments


@lru_cache
def _lexer(language: str) -> Lexer | None:
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        # Blank lines at the ends belong to the chunk.
        return get_lexer_by_name(language.lower(), stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


@lru_cache
def _role(kind: Any) -> str:
    """Return what a kind of token counts as; cached, since looking up ancestors is slow."""
    from pygments.token import Comment, Keyword, Name, Operator, String

    if kind in Comment or kind in String.Doc:
        return "comment"
    if kind in Keyword or kind in Operator.Word:
        return "keyword"
    return "name" if kind in Name else "other"


def _repetition(words: list[str]) -> float:
    """Return the share of runs of three tokens that equal an earlier run."""
    runs = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _bracket_depth(words: list[str]) -> float:
    """Return d / (1 + d) for the mean number d of open brackets around a token; a bracket does not enclose itself.

    A chunk may close brackets that were opened before it; as many as that needs count as open at its start.
    """
    depth, lowest, total = 0, 0, 0
    for word in words:
        if word in _CLOSE:
            depth -= 1
            lowest = min(lowest, depth)
        total += depth
        depth += word in _OPEN
    mean = total / max(len(words), 1) - lowest
    return mean / (1 + mean)
