"""The model's own byte-level BPE tokenizer: text to token ids and back, and the bytes that each token stands for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ponderttt.errors import PonderTTTError
from ponderttt.provenance import atomic_path

if TYPE_CHECKING:
    import tokenizers

PAD = "<|pad|>"
#: Names that models of the family give to their end-of-text token, the separator of documents.
END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>")
#: Kinds of token in a GGUF file that are not plain text.
_CONTROL, _USER_DEFINED = 3, 4


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A byte-level BPE tokenizer with a dedicated pad token.

    Attributes:
        vocab_size: rows of the model's embedding; ids below it are tokens.
        pad_id: ``vocab_size``, the id of ``<|pad|>``; it never comes out of :meth:`encode`.
        eot_id: the model's end-of-text token.
        digest: sha256 of the tokenizer's definition, for cache keys.
        json: the definition, as ``tokenizer.json`` holds it.
    """

    vocab_size: int
    pad_id: int
    eot_id: int
    digest: str
    json: str
    _core: tokenizers.Tokenizer
    _bytes: np.ndarray

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` and nothing else: no special token is added, or recognised inside the text."""
        return self._core.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; special tokens by their names. Bytes that are not UTF-8 become U+FFFD."""
        return self._core.decode(list(ids), skip_special_tokens=False)

    def token_bytes(self, ids: Sequence[int] | np.ndarray) -> list[int]:
        """UTF-8 bytes that each token stands for; 0 for special tokens, end of text and padding."""
        return self._bytes[np.asarray(ids, dtype=np.int64)].tolist()

    def save(self, path: Path | str) -> None:
        """Write ``tokenizer.json``, which ``transformers.PreTrainedTokenizerFast(tokenizer_file=…)`` reads."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.json)


def load(path: Path | str, vocab_size: int | None = None) -> Tokenizer:
    """Read ``tokenizer.json``.

    Args:
        path: the file.
        vocab_size: rows of the model's embedding, where it has more than the tokenizer has tokens.

    Raises:
        PonderTTTError: no such file, not a tokenizer, or not a byte-level BPE one.
    """
    try:
        return from_json(Path(path).read_text(), vocab_size)
    except FileNotFoundError:
        raise PonderTTTError(f"{path}: missing; fetch the model again") from None
    except UnicodeDecodeError:
        raise PonderTTTError(f"{path}: not a tokenizer.json; fetch the model again") from None
    except PonderTTTError as error:
        raise PonderTTTError(f"{path}: {error}") from None


def from_vocabulary(
    tokens: Sequence[str], kinds: Sequence[int], merges: Sequence[str], splitter: str
) -> Tokenizer:
    """Build a tokenizer from the tables of a GGUF file.

    Args:
        tokens: the vocabulary in GPT-2's printable byte alphabet, in the order of ids.
        kinds: GGUF's kind of each token (3: control, 4: user-defined).
        merges: ``"left right"``, best first.
        splitter: the name of the pre-tokenizer (``tokenizer.ggml.pre``).

    Raises:
        PonderTTTError: a splitter that is not known, a token that is there twice, a merge of unknown parts.
    """
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Core

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    splitters = {
        # Digits one by one, then GPT-2's splitting into words.
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
        "gpt-2": byte_level,
    }
    if splitter not in splitters:
        raise PonderTTTError(f"pre-tokenizer {splitter} is not known; known: {', '.join(splitters)}")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise PonderTTTError("a token is in the vocabulary twice")
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    try:
        core = Core(models.BPE(vocab=vocabulary, merges=pairs, fuse_unk=False))
    except Exception as error:  # tokenizers raises bare Exception
        raise PonderTTTError(f"the merges do not fit the vocabulary: {error}") from None
    core.pre_tokenizer = splitters[splitter]
    core.decoder = decoders.ByteLevel()
    named = list(zip(tokens, kinds, strict=True))
    core.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, k in named if k == _CONTROL]
    )
    core.add_tokens([AddedToken(t, normalized=False) for t, k in named if k == _USER_DEFINED])
    return from_json(core.to_str(), len(tokens))


def from_json(text: str, vocab_size: int | None = None) -> Tokenizer:
    """Build a tokenizer from the contents of a ``tokenizer.json``; see :func:`load`."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Core

    try:
        core = Core.from_str(text)
        definition = json.loads(text)
    except Exception as error:  # tokenizers raises bare Exception
        raise PonderTTTError("not a tokenizer.json; fetch the model again") from error
    _require_byte_level(definition)
    have = core.get_vocab_size(with_added_tokens=True)
    pad_id = core.token_to_id(PAD)
    if pad_id is None:
        pad_id = have if vocab_size is None else vocab_size
        # Ids are given in order, so rows of the embedding without a token get a name before the pad does.
        unused = [f"<|unused_{index}|>" for index in range(have, pad_id)]
        core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (*unused, PAD)])
    if core.token_to_id(PAD) != (pad_id if vocab_size is None else vocab_size):
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
        _bytes=_bytes_per_token(core),
    )


def _require_byte_level(definition: dict[str, Any]) -> None:
    splitter = definition.get("pre_tokenizer") or {}
    parts = splitter.get("pretokenizers", [splitter])
    levels = [part for part in parts if part.get("type") == "ByteLevel"]
    if definition.get("model", {}).get("type") != "BPE" or not levels:
        raise PonderTTTError("not a byte-level BPE tokenizer; only those are supported")
    if definition.get("normalizer") or any(part.get("add_prefix_space") for part in levels):
        raise PonderTTTError("its normalizer changes the text, so bytes could not be counted; not supported")


def _bytes_per_token(core: tokenizers.Tokenizer) -> np.ndarray:
    """One character of a byte-level token is one byte; added tokens are plain text, special ones stand for none."""
    counts = np.zeros(core.get_vocab_size(with_added_tokens=True), np.int32)
    for token, index in core.get_vocab(with_added_tokens=True).items():
        counts[index] = len(token)
    for index, added in core.get_added_tokens_decoder().items():
        counts[index] = 0 if added.special else len(added.content.encode())
    return counts
