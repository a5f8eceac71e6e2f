"""Tokens to text as they come: whole characters only, and nothing of a stop string, wherever tokens cut it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ponderttt.errors import PonderTTTError

#: What a decoder writes for bytes that are not (yet) a character.
_INCOMPLETE = "\ufffd"
#: A character that still lacks a byte has at most so many, and some decoders show each by a sign of its own.
_LONGEST_TAIL = 3


def check_stops(stops: Sequence[str]) -> tuple[str, ...]:
    """Raise PonderTTTError for a stop string that is empty: it would stop before anything is written."""
    if "" in stops:
        raise PonderTTTError("a stop string is empty; leave it out")
    return tuple(stops)


class TextStream:
    """The text of one continuation.

    Args:
        decode: from token ids to text; bytes that are no UTF-8 become U+FFFD.
        stops: strings before which the text ends.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, check_stops(stops)
        #: Tokens since the last that ended with a whole character, and how much of their text was passed on.
        self._waiting: list[int] = []
        self._passed = 0
        self._held = ""
        #: Whether a stop string came.
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now; empty while a character or a stop string may be under way."""
        if self.stopped:
            return ""
        self._waiting.append(token)
        text = self._decode(self._waiting)
        whole = len(text) - min(_LONGEST_TAIL, len(text) - len(text.rstrip(_INCOMPLETE)))
        # A token may end one character and begin the next: those before the last are certain, whatever it becomes.
        piece, self._passed = text[self._passed : whole], max(whole, self._passed)
        if whole == len(text):
            self._waiting, self._passed = [], 0
        return self._release(piece)

    def flush(self) -> str:
        """What is left when no token comes any more."""
        text = self._decode(self._waiting)[self._passed :] if self._waiting and not self.stopped else ""
        self._waiting, self._passed = [], 0
        text = self._release(text) + ("" if self.stopped else self._held)
        self._held = ""
        return text

    def _release(self, text: str) -> str:
        self._held += text
        # The stop string that is complete first ends the text, however its tokens were cut.
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            out, self._held, self.stopped = self._held[: min(found)[1]], "", True
            return out
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a start of ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
