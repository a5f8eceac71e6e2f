"""Build tokenizers from the tables of a GGUF file: a byte-level vocabulary with merges, or pieces with scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ponderttt.errors import PonderTTTError
from ponderttt.models.tokenizer import SPACE, Tokenizer, from_json

if TYPE_CHECKING:
    import tokenizers

#: Kinds of token in a GGUF file.
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_UNKNOWN = "<unk>"


def from_vocabulary(
    tokens: Sequence[str], kinds: Sequence[int], merges: Sequence[str], splitter: str
) -> Tokenizer:
    """Return a byte-level BPE tokenizer (``tokenizer.ggml.model`` gpt2).

    Args:
        tokens: the vocabulary in GPT-2's printable byte alphabet, in the order of ids.
        kinds: GGUF's kind of each token (3: control, 4: user-defined).
        merges: ``"left right"``, best first.
        splitter: the name of the pre-tokenizer (``tokenizer.ggml.pre``).

    Raises:
        PonderTTTError: an unknown splitter, a duplicate token, or a merge of unknown parts.
    """
    from tokenizers import Tokenizer as Core
    from tokenizers import decoders, models, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    splitters = {
        # Single digits, then words as GPT-2 splits them.
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level]),
        "gpt-2": byte_level,
    }
    if splitter not in splitters:
        raise PonderTTTError(f"unknown pre-tokenizer {splitter}; known: {', '.join(splitters)}")
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    try:
        core = Core(models.BPE(vocab=_vocabulary(tokens), merges=pairs, fuse_unk=False))
    except PonderTTTError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise PonderTTTError(f"the merges do not fit the vocabulary: {error}") from None
    core.pre_tokenizer = splitters[splitter]
    core.decoder = decoders.ByteLevel()
    return _finish(core, tokens, kinds)


def from_pieces(tokens: Sequence[str], kinds: Sequence[int], scores: Sequence[float]) -> Tokenizer:
    """Return a SentencePiece BPE tokenizer (``tokenizer.ggml.model`` llama) that adds no space before a text.

    SentencePiece joins the two neighbours that form the piece of the highest score (Kudo & Richardson 2018,
    arXiv:1808.06226), so every way to halve a piece is a merge of that piece's rank.

    Args:
        tokens: the pieces, ``▁`` for a space, in the order of ids; user-defined ones as in a text.
        kinds: GGUF's kind of each token (1: normal, 3: control, 4: user-defined, 6: byte).
        scores: score of each piece.

    Raises:
        PonderTTTError: a duplicate piece, or no piece for unknown text.
    """
    from tokenizers import Tokenizer as Core
    from tokenizers import decoders, models, normalizers

    vocabulary = _vocabulary(tokens)
    if _UNKNOWN not in vocabulary:
        raise PonderTTTError(f"no {_UNKNOWN} among its tokens")
    normal = {token for token, kind in zip(tokens, kinds, strict=True) if kind == _NORMAL}
    ranked = sorted(normal, key=lambda piece: (-scores[vocabulary[piece]], vocabulary[piece]))
    merges = [
        (piece[:cut], piece[cut:])
        for piece in ranked
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    ]
    core = Core(
        models.BPE(vocab=vocabulary, merges=merges, unk_token=_UNKNOWN, fuse_unk=True, byte_fallback=True)
    )
    core.normalizer = normalizers.Replace(" ", SPACE)
    core.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return _finish(core, tokens, kinds)


def _vocabulary(tokens: Sequence[str]) -> dict[str, int]:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise PonderTTTError("a token is in the vocabulary twice")
    return vocabulary


def _finish(core: tokenizers.Tokenizer, tokens: Sequence[str], kinds: Sequence[int]) -> Tokenizer:
    """Add the tokens that are not plain text: control tokens, and user-defined ones, which a text is split at first."""
    from tokenizers import AddedToken

    named = list(zip(tokens, kinds, strict=True))
    core.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, k in named if k == _CONTROL]
    )
    core.add_tokens([AddedToken(t, normalized=False) for t, k in named if k == _USER_DEFINED])
    return from_json(core.to_str(), len(tokens))
