"""What is written is the text before the first stop string, whole characters at a time, wherever tokens cut it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponderttt.decoding.text import TextStream
from ponderttt.errors import PonderTTTError


def decode(tokens: list[int]) -> str:
    """Every token is a byte."""
    return bytes(tokens).decode("utf-8", errors="replace")


def written(text: str, stops: list[str]) -> tuple[str, bool, list[str]]:
    stream = TextStream(decode, stops)
    pieces = [stream.push(byte) for byte in text.encode()]
    return "".join([*pieces, stream.flush()]), stream.stopped, pieces


@given(st.text("ab\n é漢🙂", max_size=40), st.lists(st.text("ab\né漢", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_stop_string_that_is_complete_first(text: str, stops: list[str]) -> None:
    found = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    out, stopped, _ = written(text, stops)
    assert out == (text[: min(found)[1]] if found else text)
    assert stopped == bool(found)


@given(st.text("ab\n é漢🙂", max_size=40))
def test_nothing_is_written_that_is_no_whole_character(text: str) -> None:
    _, _, pieces = written(text, [])
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_text_is_held_back_only_while_a_stop_string_may_be_under_way() -> None:
    stream = TextStream(decode, ["\n\n"])
    assert [stream.push(byte) for byte in b"a\nb\n\nc"] == ["a", "", "\nb", "", "", ""]
    assert stream.stopped and stream.flush() == ""


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    stream = TextStream(decode)
    assert "".join(stream.push(byte) for byte in b"\xff\xff\xff\xffa") + stream.flush() == "\ufffd" * 4 + "a"


def test_a_stop_string_that_is_empty_is_refused() -> None:
    with pytest.raises(PonderTTTError, match="a stop string is empty"):
        TextStream(decode, ["end", ""])
