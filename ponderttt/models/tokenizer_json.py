"""Load a ``tokenizer.json`` as text to ids and nothing else: no padding, truncation or dropout, and a token for every id."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from ponderttt.errors import PonderTTTError

if TYPE_CHECKING:
    import tokenizers

PAD = "<|pad|>"


def read_core(text: str, vocab_size: int | None = None) -> tokenizers.Tokenizer:
    """Return the tokenizer that a definition describes.

    Files also carry settings of the process that wrote them. transformers ignores padding and truncation unless a caller
    asks for them, and dropout draws other tokens for the same text each time; all three are removed.

    Args:
        text: contents of ``tokenizer.json``.
        vocab_size: rows of the model's embedding; special tokens without a row are removed.

    Raises:
        PonderTTTError: not a tokenizer, or two tokens share an id.
    """
    core = _parsed(text)
    if vocab_size is not None and any(
        _has_no_row(token.content, token.special, index, vocab_size)
        for index, token in core.get_added_tokens_decoder().items()
    ):
        text = _without_rowless(text, vocab_size)
        core = _parsed(text)
    if is_bpe(core):
        if not _ids_are_stated(core, text):
            core = _parsed(_every_id_named(text))
        core.model.dropout = None
    core.no_padding()
    core.no_truncation()
    return core


def is_bpe(core: tokenizers.Tokenizer) -> bool:
    """True if the tokenizer merges pairs."""
    from tokenizers.models import BPE

    return isinstance(core.model, BPE)


def is_pad(name: str, special: bool) -> bool:
    """True for names that this package gives to its pad token: ``<|pad|>``, or ``<|pad_1|>`` if the model has its own."""
    return special and re.fullmatch(r"<\|pad(_\d+)?\|>", name) is not None


def _parsed(text: str) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Core

    try:
        return Core.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception
        raise PonderTTTError("not a tokenizer.json; fetch the model again") from error


def _has_no_row(name: str, special: bool, index: int, vocab_size: int) -> bool:
    """True for a special token beyond the embedding, other than the pad that this package added."""
    return special and index >= vocab_size and not (index == vocab_size and is_pad(name, special))


def _added_tokens(text: str) -> tuple[list[dict[str, Any]], int, int]:
    """The list of added tokens, and where it starts and ends in the definition.

    The rest is not parsed: the vocabulary takes much memory.
    """
    found = re.search(r'"added_tokens"\s*:\s*(?=\[)', text)
    if not found:
        return [], 0, 0
    tokens, end = json.JSONDecoder().raw_decode(text, found.end())
    return tokens, found.end(), end


def _without_rowless(text: str, vocab_size: int) -> str:
    """Remove special tokens that have no row, such as those of images, which Gemma 3's text models never read."""
    tokens, start, end = _added_tokens(text)
    kept = [
        token
        for token in tokens
        if not _has_no_row(token["content"], token["special"], token["id"], vocab_size)
    ]
    return text[:start] + json.dumps(kept, ensure_ascii=False) + text[end:]


def _ids_are_stated(core: tokenizers.Tokenizer, text: str) -> bool:
    """True if every id up to the last has one token, and added tokens have the ids that the file states.

    The library gives an added token the next free id, whatever the file states, and counts tokens instead of ids.
    """
    if set(core.get_vocab(with_added_tokens=True).values()) != set(
        range(core.get_vocab_size(with_added_tokens=True))
    ):
        return False
    return all(core.token_to_id(token["content"]) == token["id"] for token in _added_tokens(text)[0])


def _every_id_named(text: str) -> str:
    """A definition whose vocabulary has a token for every id: added tokens where the file states, the rest unused."""
    definition = json.loads(text)
    vocabulary, added = definition["model"]["vocab"], definition["added_tokens"]
    for token in added:
        name, index = token["content"], token["id"]
        if vocabulary.setdefault(name, index) != index:
            raise PonderTTTError(
                f"token {name} has the id {vocabulary[name]} in the vocabulary and {index} among the added tokens"
            )
    used = Counter(vocabulary.values())
    index, count = used.most_common(1)[0]
    if count > 1:
        names = [name for name, own in vocabulary.items() if own == index]
        raise PonderTTTError(f"tokens {' and '.join(names)} share the id {index}")
    for index in sorted(set(range(max(used))) - used.keys()):
        name = unused(index)
        vocabulary[name] = index
        added.append({**_PLAIN, "id": index, "content": name})
    return json.dumps(definition, ensure_ascii=False)


#: Flags of a special token that takes no space around it.
_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def unused(index: int) -> str:
    """Name of an id that has a row of the embedding and no token."""
    return f"<|unused_{index}|>"
