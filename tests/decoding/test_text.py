"""The output is the text before the first stop string, in whole characters, wherever tokens cut it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders

from ponderttt.decoding.text import TextStream
from ponderttt.errors import PonderTTTError


def decode(tokens: Iterable[int]) -> str:
    """Decode tokens that are bytes."""
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
def test_only_whole_characters_are_written(text: str) -> None:
    _, _, pieces = written(text, [])
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def splits(raw: bytes) -> Iterator[list[bytes]]:
    """Yield every way to cut bytes into tokens."""
    for count in range(len(raw)):
        for cuts in combinations(range(1, len(raw)), count):
            yield [raw[start:end] for start, end in pairwise([0, *cuts, len(raw)])]


def decode_tokens(tokens: Sequence[bytes], ids: Sequence[int]) -> str:
    return decode(b"".join(tokens[i] for i in ids))


@pytest.mark.parametrize("text", ["中中丙", "a🙂é漢", "é🙂🙂", "漢\ufffd字"])
def test_each_character_is_written_as_soon_as_it_is_complete(text: str) -> None:
    for tokens in splits(text.encode()):
        stream = TextStream(partial(decode_tokens, tokens))
        written = ""
        for i in range(len(tokens)):
            written += stream.push(i)
            whole = b"".join(tokens[: i + 1]).decode(errors="ignore")
            # U+FFFD in the text itself looks like an incomplete character.
            assert written.rstrip("\ufffd") == whole.rstrip("\ufffd"), (tokens, i)
        assert written + stream.flush() == text, tokens


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=12))
def test_any_bytes_give_the_text_of_all_of_them_together(tokens: list[bytes]) -> None:
    stream = TextStream(lambda ids: decode(b"".join(tokens[i] for i in ids)))
    pieces = [stream.push(i) for i in range(len(tokens))]
    assert "".join([*pieces, stream.flush()]) == decode(b"".join(tokens))


def test_bytes_of_a_sentencepiece_vocabulary_become_characters_at_their_last_one() -> None:
    """Its decoder writes one sign per byte of an incomplete character."""
    decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    names = ["x", *(f"<0x{byte:02X}>" for byte in "🙂é".encode()), "y"]
    stream = TextStream(lambda ids: decoder.decode([names[i] for i in ids]))
    assert [stream.push(i) for i in range(len(names))] == ["x", "", "", "", "🙂", "", "é", "y"]
    assert stream.flush() == ""


def test_text_is_held_back_only_while_a_stop_string_may_be_incomplete() -> None:
    stream = TextStream(decode, ["\n\n"])
    assert [stream.push(byte) for byte in b"a\nb\n\nc"] == ["a", "", "\nb", "", "", ""]
    assert stream.stopped and stream.flush() == ""


def test_bytes_that_are_not_text_are_written_as_replacement_characters() -> None:
    stream = TextStream(decode)
    assert "".join(stream.push(byte) for byte in b"\xff\xff\xff\xffa") + stream.flush() == "\ufffd" * 4 + "a"


def test_a_stop_string_that_is_empty_is_refused() -> None:
    with pytest.raises(PonderTTTError, match="a stop string is empty"):
        TextStream(decode, ["end", ""])
