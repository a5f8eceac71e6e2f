"""The tokenizer gives text back, counts its bytes, and takes nothing inside a text for a special token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import model_files as files
from ponderttt.errors import PonderTTTError
from ponderttt.models import tokenizer
from ponderttt.models.tokenizer_tables import from_vocabulary

READER = from_vocabulary(files.TOKENS, files.KINDS, files.MERGES, "smollm")
CODE = "def f(x):\n        return 'é' + str(2024)\n\t# <|endoftext|> <|pad|>\r\n"


@settings(max_examples=150, deadline=None)
@given(st.text())
@example(CODE)
@example("<|endoftext|>")
@example("\x00\ufeff  \n")
def test_any_text_decodes_back_and_its_bytes_add_up(text: str) -> None:
    ids = READER.encode(text)
    assert READER.decode(ids) == text
    assert sum(READER.token_bytes(ids)) == len(text.encode())
    assert all(len(files.SPECIAL) <= token < READER.vocab_size for token in ids)


def test_merges_and_single_digits_are_applied() -> None:
    def names(text: str) -> list[str]:
        return [files.TOKENS[i] for i in READER.encode(text)]

    assert names("def return") == ["def", "Ġ", "return"]
    assert names("x12") == ["x", "1", "2"]
    assert names("é") == ["Ã©"]
    assert READER.token_bytes(READER.encode("édef")) == [2, 3]


def test_special_tokens_stand_for_no_bytes() -> None:
    assert READER.eot_id == 0 and READER.pad_id == READER.vocab_size == len(files.TOKENS)
    assert READER.token_bytes([READER.eot_id, 1, 2, READER.pad_id]) == [0, 0, 0, 0]
    assert READER.decode([READER.eot_id]) == "<|endoftext|>"


def test_a_saved_tokenizer_is_the_same_here_and_in_transformers(tmp_path: Path) -> None:
    READER.save(tmp_path / "tokenizer.json")
    again = tokenizer.load(tmp_path / "tokenizer.json")
    assert again.digest == READER.digest and again.pad_id == READER.pad_id
    assert again.encode(CODE) == READER.encode(CODE)
    other = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert other(CODE, split_special_tokens=True)["input_ids"] == READER.encode(CODE)
    assert other.convert_tokens_to_ids("<|pad|>") == READER.pad_id
    assert other.decode(READER.encode("def f")) == "def f"


def test_rows_of_the_embedding_without_a_token_come_before_the_pad() -> None:
    padded = json.loads(READER.json)
    padded["added_tokens"] = [t for t in padded["added_tokens"] if t["content"] != tokenizer.PAD]
    wider = tokenizer.from_json(json.dumps(padded), vocab_size=len(files.TOKENS) + 5)
    assert wider.pad_id == wider.vocab_size == len(files.TOKENS) + 5
    assert wider.encode(CODE) == READER.encode(CODE)
    assert tokenizer.from_json(wider.json).pad_id == wider.pad_id
    with pytest.raises(PonderTTTError, match="do not belong together"):
        tokenizer.from_json(READER.json, vocab_size=len(files.TOKENS) - 1)


def test_special_tokens_without_a_row_are_left_out() -> None:
    """Published text models of Gemma 3 name a token of images behind their last row."""
    padded = json.loads(READER.json)
    own = [token for token in padded["added_tokens"] if token["content"] != tokenizer.PAD]
    behind = {**own[0], "id": len(files.TOKENS), "content": "<image_soft_token>"}
    padded["added_tokens"] = [*own, behind]
    text = json.dumps(padded)
    found = tokenizer.from_json(text, vocab_size=len(files.TOKENS))
    assert (found.pad_id, found.vocab_size) == (len(files.TOKENS), len(files.TOKENS))
    assert found.encode(CODE + "<image_soft_token>") == READER.encode(CODE + "<image_soft_token>")
    assert tokenizer.from_json(found.json).digest == found.digest
    # With a row of its own it stays, and the pad comes behind it.
    assert tokenizer.from_json(text, vocab_size=len(files.TOKENS) + 1).pad_id == len(files.TOKENS) + 1


def test_the_digest_sees_one_merge() -> None:
    fewer = from_vocabulary(files.TOKENS, files.KINDS, files.MERGES[:-1], "smollm")
    whole = from_vocabulary(files.TOKENS, files.KINDS, files.MERGES, "gpt-2")
    assert len({READER.digest, fewer.digest, whole.digest}) == 3


def test_what_is_not_lossless_is_refused(tmp_path: Path) -> None:
    changed = json.loads(READER.json)
    for change, message in (
        ({"pre_tokenizer": None}, "neither a byte-level"),
        ({"normalizer": {"type": "NFC"}}, "changes the text"),
    ):
        (tmp_path / "tokenizer.json").write_text(json.dumps(changed | change))
        with pytest.raises(PonderTTTError, match=message):
            tokenizer.load(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PonderTTTError, match=r"tokenizer\.json: not a tokenizer"):
        tokenizer.load(tmp_path / "tokenizer.json")
    with pytest.raises(PonderTTTError, match="missing"):
        tokenizer.load(tmp_path / "nowhere.json")
    with pytest.raises(PonderTTTError, match="twice"):
        from_vocabulary([*files.TOKENS, "a"], [*files.KINDS, 1], files.MERGES, "smollm")
    with pytest.raises(PonderTTTError, match="do not fit"):
        from_vocabulary(files.TOKENS, files.KINDS, ["zz qq"], "smollm")
    with pytest.raises(PonderTTTError, match="no end-of-text token"):
        from_vocabulary(["<end>", *files.TOKENS[1:]], files.KINDS, files.MERGES, "smollm")
