"""A tokenizer of pieces joins neighbours by score, keeps rare characters as bytes, and finds user-defined pieces first."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ponderttt.cli.complete import prompted
from ponderttt.corpus.streams import Document
from ponderttt.errors import PonderTTTError
from ponderttt.models import tokenizer
from ponderttt.models.tokenizer_tables import from_pieces

CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>"]
DEFINED = ["\n", "\n\n", "  ", "   ", "<b>"]
BYTES = [f"<0x{value:02X}>" for value in range(256)]
#: Best first, as in a trained model: joined pieces, then single characters.
NORMAL = ["▁t", "he", "▁the", "re", "ret", "urn", "return", "▁return", "abc", "bc", "ab", *"▁therunabcdé"]
NORMAL = list(dict.fromkeys(NORMAL))
TOKENS = [*CONTROL, *DEFINED, *BYTES, *NORMAL]
KINDS = [3] * len(CONTROL) + [4] * len(DEFINED) + [6] * len(BYTES) + [1] * len(NORMAL)
SCORES = (
    [-1000.0] * (len(CONTROL) + len(DEFINED)) + [0.0] * len(BYTES) + [-float(n) for n in range(len(NORMAL))]
)
READER = from_pieces(TOKENS, KINDS, SCORES)


def joined(text: str) -> list[str]:
    """Tokenise by the definition of SentencePiece: join the best pair, the first of equals, until there is none."""
    pieces = list(text.replace(" ", "▁"))
    while True:
        pairs = [(left + right, place) for place, (left, right) in enumerate(itertools.pairwise(pieces))]
        known = [(SCORES[TOKENS.index(pair)], -place) for pair, place in pairs if pair in NORMAL]
        if not known:
            break
        place = -max(known)[1]
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    found = []
    for piece in pieces:
        found += [piece] if piece in NORMAL else [f"<0x{byte:02X}>" for byte in piece.encode()]
    return found


def reference(text: str) -> list[str]:
    """Return the pieces of a text, the longest user-defined one first."""
    longest = sorted(DEFINED, key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, longest)) + ")", text)
    return [piece for part in parts for piece in ([part] if part in DEFINED else joined(part))]


def pieces(text: str) -> list[str]:
    return [TOKENS[index] for index in READER.encode(text)]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=" therunabcdé\n<>漢\t", max_size=40))
@example("the return  of\n\n\n<b>abc")
@example(" abcabc bcab")
def test_pieces_are_those_of_the_definition(text: str) -> None:
    assert pieces(text) == reference(text)


@settings(max_examples=150, deadline=None)
@given(st.text().filter(lambda text: "▁" not in text))
@example("<eos><bos> \x00\r\n🦜")
def test_any_text_decodes_back_and_its_bytes_add_up(text: str) -> None:
    ids = READER.encode(text)
    assert READER.decode(ids) == text
    assert sum(READER.token_bytes(ids)) == len(text.encode())
    assert all(len(CONTROL) <= token < READER.vocab_size for token in ids)


def test_the_sign_for_a_space_is_the_one_character_that_is_lost() -> None:
    # Streams leave out such a document, because bytes and text no longer agree.
    ids = READER.encode("a▁b")
    assert READER.decode(ids) == "a b"
    assert sum(READER.token_bytes(ids)) != len("a▁b".encode())


def test_a_saved_tokenizer_is_the_same() -> None:
    again = tokenizer.from_json(READER.json, len(TOKENS))
    assert again.digest == READER.digest
    assert again.pad_id == READER.pad_id == len(TOKENS)
    assert again.eot_id == TOKENS.index("<eos>")
    assert again.encode("the return\n\n") == READER.encode("the return\n\n")


def test_what_changes_the_text_or_can_not_be_used_is_refused() -> None:
    changed = json.loads(READER.json)
    with pytest.raises(PonderTTTError, match="changes more than spaces"):
        tokenizer.from_json(json.dumps(changed | {"normalizer": {"type": "NFC"}}))
    with pytest.raises(PonderTTTError, match="twice"):
        from_pieces([*TOKENS, "he"], [*KINDS, 1], [*SCORES, 0.0])
    with pytest.raises(PonderTTTError, match="no <unk>"):
        from_pieces(TOKENS[4:], KINDS[4:], SCORES[4:])


def test_a_text_with_the_sign_for_a_space_is_named_and_never_continued() -> None:
    """A file of a repository is left out; the file to continue is an error."""
    reason = "contains '▁' (U+2581), which the model's tokenizer does not give back"
    notices: list[str] = []
    strange = Document("s.py", "x = '\u2581'\n")
    ids, source = prompted([strange], Document("z.py", "he"), "z.py", READER, notices.append)
    assert source.document_paths == ("z.py",) and ids == READER.encode("he")
    assert notices == [f"s.py: left out, {reason}"]
    with pytest.raises(PonderTTTError, match=re.escape(f"s.py: {reason}")):
        prompted([], strange, "s.py", READER, notices.append)
