"""The model's own BPE tokenizer: text to token ids and back, and the bytes that each token stands for.

Two alphabets are supported, both lossless: bytes (GPT-2, SmolLM2), and characters with a sign for the space and bytes
for rare characters (SentencePiece, as in Gemma).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import atomic_path
from ponderttt.models.tokenizer_json import PAD, is_bpe, is_pad, read_core, unused

if TYPE_CHECKING:
    import tokenizers

#: Names of end-of-text tokens, which separate documents.
END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "<eos>")
#: Names of tokens that end a turn of a conversation.
END_OF_TURN = ("<|im_end|>", "<end_of_turn>")
#: Splitters that drop the characters at which they split.
_DROPPING = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer", "CharDelimiterSplit")
#: SentencePiece's sign for a space.
SPACE = "\u2581"


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A BPE tokenizer with a dedicated pad token.

    Attributes:
        vocab_size: rows of the model's embedding; ids below it are tokens.
        pad_id: ``vocab_size``, the id of the pad token that is added here; :meth:`encode` never returns it.
        eot_id: the model's end-of-text token.
        digest: sha256 of the tokenizer's definition, for cache keys.
        json: the definition, as ``tokenizer.json`` holds it.
        ends: tokens that end a text according to the model's files, besides those known by name.
    """

    vocab_size: int
    pad_id: int
    eot_id: int
    digest: str
    json: str
    _core: tokenizers.Tokenizer
    _bytes: np.ndarray
    ends: frozenset[int] = frozenset()

    def encode(self, text: str) -> list[int]:
        """Return the token ids of ``text``; no special token is added, or recognised inside the text."""
        return self._core.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; special tokens by their names. Bytes that are not UTF-8 become U+FFFD."""
        return self._core.decode(list(ids), skip_special_tokens=False)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a continuation."""
        named = map(self._core.token_to_id, (*END_OF_TEXT, *END_OF_TURN))
        found = {*self.ends, *(index for index in named if index is not None)}
        return frozenset(index for index in found if index < self.vocab_size)

    def token_bytes(self, ids: Sequence[int] | np.ndarray) -> list[int]:
        """Return the UTF-8 bytes that each token stands for; 0 for special tokens, end of text and padding."""
        return self._bytes[np.asarray(ids, dtype=np.int64)].tolist()

    def save(self, path: Path | str) -> None:
        """Write ``tokenizer.json``, which ``transformers.PreTrainedTokenizerFast(tokenizer_file=…)`` reads."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.json, encoding="utf-8")


def load(path: Path | str, vocab_size: int | None = None) -> Tokenizer:
    """Read ``tokenizer.json``.

    Args:
        path: the file.
        vocab_size: rows of the model's embedding, if more than the tokenizer has tokens.

    Raises:
        PonderTTTError: no such file, not a tokenizer, or one that is not lossless.
    """
    try:
        return from_json(Path(path).read_text(encoding="utf-8"), vocab_size)
    except FileNotFoundError:
        raise PonderTTTError(f"{path}: missing; fetch the model again") from None
    except UnicodeDecodeError:
        raise PonderTTTError(f"{path}: not a tokenizer.json; fetch the model again") from None
    except PonderTTTError as error:
        raise PonderTTTError(f"{path}: {error}") from None


def from_json(text: str, vocab_size: int | None = None) -> Tokenizer:
    """Build a tokenizer from the contents of a ``tokenizer.json``; see :func:`load`."""
    from tokenizers import AddedToken

    core = read_core(text, vocab_size)
    bytes_of = _bytes_of(core)
    have = core.get_vocab_size(with_added_tokens=True)
    pad = _pad_name(core, have - 1 if vocab_size is None else vocab_size)
    pad_id = core.token_to_id(pad)
    if pad_id is None:
        pad_id = have if vocab_size is None else vocab_size
        # Ids are given in order, so rows of the embedding without a token get a name before the pad does.
        names = [*map(unused, range(have, pad_id)), pad]
        core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    if core.token_to_id(pad) != pad_id:
        raise PonderTTTError(
            f"has {have} tokens, the model's embedding {vocab_size} rows; they do not belong together"
        )
    eot = next((i for i in map(core.token_to_id, END_OF_TEXT) if i is not None), None)
    if eot is None:
        raise PonderTTTError(f"no end-of-text token; known names: {', '.join(END_OF_TEXT)}")
    final = core.to_str()
    core.encode_special_tokens = True
    return Tokenizer(
        vocab_size=pad_id,
        pad_id=pad_id,
        eot_id=eot,
        digest=hashlib.sha256(final.encode()).hexdigest(),
        json=final,
        _core=core,
        _bytes=_bytes_per_token(core, bytes_of),
    )


def _pad_name(core: tokenizers.Tokenizer, own_id: int) -> str:
    """Return a name for the pad token: that of ``own_id`` if a conversion added it, or else one that the model does not use."""
    added = core.get_added_tokens_decoder().get(own_id)
    if added is not None and is_pad(added.content, added.special):
        return added.content
    names = (PAD, *(f"<|pad_{number}|>" for number in range(1, core.get_vocab_size() + 2)))
    return next(name for name in names if core.token_to_id(name) is None)


def _definition(part: Any) -> dict[str, Any]:
    """Return the definition of the normalizer or the pre-tokenizer, without the vocabulary, which takes much memory."""
    found: dict[str, Any] = {} if part is None else json.loads(part.__getstate__())
    return found


def _bytes_of(core: tokenizers.Tokenizer) -> Callable[[str], int]:
    """Return a function that counts the bytes of a token, by the alphabet of the tokenizer."""
    model: Any = core.model if is_bpe(core) else None
    normalizer, splitter = _definition(core.normalizer), _definition(core.pre_tokenizer)
    parts = splitter.get("pretokenizers", [splitter])
    levels = [part for part in parts if part.get("type") == "ByteLevel"]
    if model and (mark := model.continuing_subword_prefix or model.end_of_word_suffix):
        raise PonderTTTError(
            f"its tokens mark parts of words with {mark}, so bytes could not be counted; not supported"
        )
    if any(part.get("type") in _DROPPING or part.get("behavior") == "Removed" for part in parts):
        raise PonderTTTError(
            "its pre-tokenizer drops characters, so bytes could not be counted; not supported"
        )
    if model and model.byte_fallback and not levels:
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        if normalizer != spaces or any(part.get("type") not in (None, "Split") for part in parts):
            raise PonderTTTError(
                "its normalizer changes more than spaces, so bytes could not be counted; not supported"
            )
        return _bytes_of_piece
    if not model or not levels:
        raise PonderTTTError(
            "neither a byte-level BPE tokenizer nor one of pieces with bytes for the rest; not supported"
        )
    if normalizer or any(part.get("add_prefix_space") for part in levels):
        raise PonderTTTError("its normalizer changes the text, so bytes could not be counted; not supported")
    # One character of a byte-level token is one byte.
    return len


def _bytes_of_piece(token: str) -> int:
    return 1 if re.fullmatch("<0x[0-9A-F]{2}>", token) else len(token.replace(SPACE, " ").encode())


def _bytes_per_token(core: tokenizers.Tokenizer, bytes_of: Callable[[str], int]) -> np.ndarray:
    """Return the bytes of each token by id; added tokens are plain text, special ones have none."""
    counts = np.zeros(core.get_vocab_size(with_added_tokens=True), np.int32)
    for token, index in core.get_vocab(with_added_tokens=True).items():
        counts[index] = bytes_of(token)
    for index, added in core.get_added_tokens_decoder().items():
        counts[index] = 0 if added.special else len(added.content.encode())
    return counts
