"""The tokenizer gives text back, counts its bytes, and recognises no special token inside a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def definition(reader: tokenizer.Tokenizer = READER) -> dict[str, Any]:
    """A tokenizer.json before this package adds its pad token."""
    found: dict[str, Any] = json.loads(reader.json)
    found["added_tokens"] = [t for t in found["added_tokens"] if t["content"] != tokenizer.PAD]
    return found


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
    wider = tokenizer.from_json(json.dumps(definition()), vocab_size=len(files.TOKENS) + 5)
    assert wider.pad_id == wider.vocab_size == len(files.TOKENS) + 5
    assert wider.encode(CODE) == READER.encode(CODE)
    assert tokenizer.from_json(wider.json).pad_id == wider.pad_id
    with pytest.raises(PonderTTTError, match="do not belong together"):
        tokenizer.from_json(READER.json, vocab_size=len(files.TOKENS) - 1)


def test_special_tokens_without_a_row_are_left_out() -> None:
    """Published text models of Gemma 3 name a token of images beyond their last row."""
    beyond = definition()
    image = {"id": len(files.TOKENS), "content": "<image_soft_token>"}
    beyond["added_tokens"].append({**beyond["added_tokens"][0], **image})
    text = json.dumps(beyond)
    found = tokenizer.from_json(text, vocab_size=len(files.TOKENS))
    assert (found.pad_id, found.vocab_size) == (len(files.TOKENS), len(files.TOKENS))
    assert found.encode(CODE + "<image_soft_token>") == READER.encode(CODE + "<image_soft_token>")
    assert tokenizer.from_json(found.json).digest == found.digest
    # With a row of its own it stays, and the pad comes after it.
    assert tokenizer.from_json(text, vocab_size=len(files.TOKENS) + 1).pad_id == len(files.TOKENS) + 1


def test_settings_of_the_process_that_wrote_the_file_are_left_out() -> None:
    """Padding adds tokens to a text, truncation takes some away, and dropout draws other ones each time."""
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": 8}
    padding |= {"pad_id": 2, "pad_type_id": 0, "pad_token": "<|im_end|>"}
    truncation = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    changed = definition() | {"padding": padding, "truncation": truncation}
    changed["model"]["dropout"] = 0.5
    found = tokenizer.from_json(json.dumps(changed), len(files.TOKENS))
    assert found.json == READER.json and found.digest == READER.digest
    assert found.encode(CODE) == READER.encode(CODE)


def test_a_model_with_a_pad_token_of_its_own_keeps_it() -> None:
    """As after ``add_special_tokens({"pad_token": "<|pad|>"})`` and ``resize_token_embeddings``."""
    own = len(files.TOKENS)
    text = json.dumps(json.loads(READER.json))
    assert tokenizer.from_json(text, own).pad_id == own
    found = tokenizer.from_json(text, own + 1)
    assert (found.pad_id, found.vocab_size) == (own + 1, own + 1)
    assert found.token_bytes([own, own + 1]) == [0, 0]
    assert found.encode(CODE) == READER.encode(CODE)
    for vocab_size in (None, own + 1):
        again = tokenizer.from_json(found.json, vocab_size)
        assert (again.pad_id, again.json) == (own + 1, found.json)
    # In a GGUF file the pad token is in the list of tokens.
    gguf = from_vocabulary([*files.TOKENS, tokenizer.PAD], [*files.KINDS, 3], files.MERGES, "smollm")
    assert gguf.pad_id == own + 1 and gguf.encode(CODE) == READER.encode(CODE)


def test_ids_without_a_token_are_named_and_others_stay_where_they_are() -> None:
    """The library counts tokens instead of ids, so with holes it would assign an id twice."""
    holes = definition()
    vocabulary = holes["model"]["vocab"]
    moved = {name: index + 3 * (index >= 100) for name, index in vocabulary.items()}
    holes["model"]["vocab"] = moved
    last = {**holes["added_tokens"][0], "id": 290, "content": "<|last|>"}
    holes["added_tokens"].append(last)
    found = tokenizer.from_json(json.dumps(holes), 300)
    assert found.vocab_size == found.pad_id == 300
    assert found.encode(CODE) == [token + 3 * (token >= 100) for token in READER.encode(CODE)]
    assert found.token_bytes(found.encode(CODE)) == READER.token_bytes(READER.encode(CODE))
    assert found.decode([290]) == "<|last|>" and found.decode([100]) == "<|unused_100|>"
    assert found.token_bytes([100, 290, 295]) == [0, 0, 0]
    assert tokenizer.from_json(found.json, 300).json == found.json


def test_two_tokens_of_one_id_are_named() -> None:
    twice = definition()
    twice["model"]["vocab"]["zz"] = 7
    with pytest.raises(PonderTTTError, match=r"tokens .* and zz share the id 7"):
        tokenizer.from_json(json.dumps(twice))
    moved = definition()
    moved["added_tokens"][1]["id"] = 77
    with pytest.raises(PonderTTTError, match=r"token <\|im_start\|> has the id 1 in the vocabulary and 77"):
        tokenizer.from_json(json.dumps(moved))


def test_the_digest_sees_one_merge() -> None:
    fewer = from_vocabulary(files.TOKENS, files.KINDS, files.MERGES[:-1], "smollm")
    whole = from_vocabulary(files.TOKENS, files.KINDS, files.MERGES, "gpt-2")
    assert len({READER.digest, fewer.digest, whole.digest}) == 3


def test_what_is_not_lossless_is_refused(tmp_path: Path) -> None:
    changed = json.loads(READER.json)
    words = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, changed["pre_tokenizer"]]}
    for change, message in (
        ({"pre_tokenizer": None}, "neither a byte-level"),
        ({"normalizer": {"type": "NFC"}}, "changes the text"),
        ({"pre_tokenizer": words}, "drops characters"),
        ({"model": changed["model"] | {"end_of_word_suffix": "</w>"}}, "mark parts of words with </w>"),
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
