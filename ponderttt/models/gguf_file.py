"""Read a model from one GGUF file: configuration, de-quantised tensors, tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ponderttt.errors import PonderTTTError
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Shape
from ponderttt.models.gguf_metadata import Metadata, open_reader
from ponderttt.models.gguf_names import GGUF_FAMILIES, gguf_name, hugging_face_name
from ponderttt.models.parameter import LazyTensor
from ponderttt.models.tensors import Checkpoint, transposed_tensors
from ponderttt.models.tokenizer import Tokenizer
from ponderttt.models.tokenizer_tables import from_pieces, from_vocabulary

#: Prefix of the keys of the tokenizer.
_TOKENIZER = "tokenizer.ggml."
#: Bytes of float32 values that are de-quantised at once.
_ROWS_BYTES = 1 << 24


def read(path: Path, family: str | None = None) -> tuple[Checkpoint, Tokenizer]:
    """Read configuration and tensors, which are de-quantised to float32 as they are read, and the tokenizer.

    Args:
        path: the file.
        family: the expected one; any by default.

    Raises:
        PonderTTTError: no such file, not a GGUF file, a truncated one, one of another family, or one of a kind that is
            not supported.
    """
    file = GGUFFile(path)
    checkpoint, tokenizer, ends = file.checkpoint(family), file.tokenizer(), file.ends()
    # The reader has several small arrays for each token, which take more memory than the tokenizer that is built next.
    del file
    with _named(path):
        return checkpoint, replace(tokenizer(), ends=ends)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Start errors with the name of the file."""
    try:
        yield
    except PonderTTTError as error:
        raise PonderTTTError(f"{path}: {error}") from None


class GGUFFile:
    """An open GGUF file.

    Raises:
        PonderTTTError: no such file, or one that :func:`~ponderttt.models.gguf_metadata.open_reader` refuses.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise PonderTTTError(f"{self.path}: no such model file")
        with _named(self.path):
            self._reader = open_reader(self.path)
        self._metadata = Metadata(self._reader)

    def config(self, family: str | None = None) -> Shape:
        """Return the shape that the metadata declares; ``family`` is the expected one, any by default."""
        with _named(self.path):
            architecture = self._metadata.text("general.architecture")
            if architecture not in GGUF_FAMILIES:
                raise PonderTTTError(f"holds a {architecture} model; known: {', '.join(GGUF_FAMILIES)}")
            if family not in (None, architecture):
                raise PonderTTTError(f"holds a {architecture} model; family {family} expects {family}")
            vocab_size = len(self._metadata.entries(f"{_TOKENIZER}tokens", str))
            tied = all(tensor.name != "output.weight" for tensor in self._reader.tensors)
            fields = self._metadata.under(f"{architecture}.")
            shape = GGUF_FAMILIES[architecture].shape(fields, vocab_size, tied)
            if shape.bos_id is None:
                return shape
            return replace(shape, bos_id=self._metadata.whole(f"{_TOKENIZER}bos_token_id", shape.bos_id, 0))

    def checkpoint(self, family: str | None = None) -> Checkpoint:
        """Return configuration and tensors, which are de-quantised to float32 as they are read."""
        config = self.config(family)
        naming, block = GGUF_FAMILIES[config.family], family_of(config).BLOCK
        # Every matrix of a file is [out, in].
        transposed = transposed_tensors(config)
        tensors = {}
        for tensor in self._reader.tensors:
            if not _is_readable(tensor.tensor_type):
                raise PonderTTTError(
                    f"{self.path}: tensor {tensor.name} has the type {tensor.tensor_type.name}, which is not supported; "
                    "convert the model to F32, F16, BF16 or a quantised type such as Q8_0"
                )
            name = hugging_face_name(naming, block, tensor.name)
            # GGUF lists dimensions innermost first.
            stored = tuple(int(size) for size in reversed(tensor.shape))
            turned = name in transposed
            read = partial(_read, tensor, stored, partial(naming.restore, config, name), turned)
            tensors[name] = LazyTensor(tensor.name, stored[::-1] if turned else stored, read)
        return Checkpoint(self.path, config, tensors, partial(gguf_name, naming, block))

    def ends(self) -> frozenset[int]:
        """Return the tokens with which the file says that its model ends a text or a turn."""
        with _named(self.path):
            names = (f"{_TOKENIZER}{name}_token_id" for name in ("eos", "eot"))
            found = [self._metadata.whole(name, -1, least=-1) for name in names]
            return frozenset(index for index in found if index >= 0)

    def tokenizer(self) -> Callable[[], Tokenizer]:
        """Return a function that builds the tokenizer of the file, and keeps nothing else of the file in memory."""
        with _named(self.path):
            metadata = self._metadata.under(_TOKENIZER)
            model = metadata.text("model")
            tokens = metadata.entries("tokens", str)
            kinds = metadata.entries("token_type", int, len(tokens))
            if model == "gpt2":
                splitter, merges = metadata.text("pre", "default"), metadata.entries("merges", str)
                return partial(from_vocabulary, tokens, kinds, merges, splitter)
            if model == "llama" and not metadata.flag("add_space_prefix", True):
                return partial(from_pieces, tokens, kinds, metadata.entries("scores", float, len(tokens)))
            raise PonderTTTError(
                f"its tokenizer is {model}; supported are byte-level BPE (gpt2), and pieces (llama) that put no space "
                "before a text"
            )


@cache
def _is_readable(kind: Any) -> bool:
    """True if the type of a tensor can be de-quantised."""
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    _, block = GGML_QUANT_SIZES[kind]
    try:
        dequantize(np.zeros((1, block), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def _read(
    tensor: Any, shape: tuple[int, ...], restore: Callable[[np.ndarray], np.ndarray], turned: bool
) -> np.ndarray:
    from gguf.quants import dequantize

    # De-quantising takes several times the memory of what it gives, so it is done some rows at a time.
    values, stored = np.empty(shape, np.float32), tensor.data.reshape(-1, tensor.data.shape[-1])
    rows = values.reshape(len(stored), -1)
    step = max(1, _ROWS_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(stored), step):
        rows[start : start + step] = dequantize(stored[start : start + step], tensor.tensor_type)
    restored = restore(values)
    return restored.T if turned else restored
