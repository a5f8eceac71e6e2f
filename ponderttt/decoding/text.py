"""Turn tokens into text as they are drawn: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ponderttt.errors import PonderTTTError

#: The character that a decoder writes for bytes that are not (yet) a character.
_INCOMPLETE = "\ufffd"
#: Most bytes of an incomplete character; some decoders write one sign for each.
_LONGEST_TAIL = 3


def check_stops(stops: Sequence[str]) -> tuple[str, ...]:
    """Return stop strings; raise PonderTTTError if one is empty, since it would stop at once."""
    if "" in stops:
        raise PonderTTTError("a stop string is empty; leave it out")
    return tuple(stops)


class TextStream:
    """The text of one continuation.

    Args:
        decode: turns token ids into text; bytes that are not UTF-8 become U+FFFD.
        stops: strings before which the text ends.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, check_stops(stops)
        #: Tokens since the last one that completed a character, and the length of their text that was returned.
        self._waiting: list[int] = []
        self._passed = 0
        self._held = ""
        #: Whether a stop string was found.
        self.stopped = False

    def push(self, token: int) -> str:
        """Return the text that is now certain; empty while a character or a stop string may be incomplete."""
        if self.stopped:
            return ""
        self._waiting.append(token)
        text = self._decode(self._waiting)
        whole = len(text) - min(_LONGEST_TAIL, len(text) - len(text.rstrip(_INCOMPLETE)))
        # A token may end one character and begin the next; all characters before the last one are certain.
        piece, self._passed = text[self._passed : whole], max(whole, self._passed)
        if whole == len(text):
            self._waiting, self._passed = [], 0
        return self._release(piece)

    def flush(self) -> str:
        """Return the rest of the text after the last token."""
        text = self._decode(self._waiting)[self._passed :] if self._waiting and not self.stopped else ""
        self._waiting, self._passed = [], 0
        text = self._release(text) + ("" if self.stopped else self._held)
        self._held = ""
        return text

    def _release(self, text: str) -> str:
        self._held += text
        # The stop string that is complete first ends the text.
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            out, self._held, self.stopped = self._held[: min(found)[1]], "", True
            return out
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of ``text`` that is a start of ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
