"""Read a model from one GGUF file: configuration, de-quantised tensors, tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ponderttt.errors import PonderTTTError
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Shape
from ponderttt.models.gguf_names import GGUF_FAMILIES, gguf_name, hugging_face_name
from ponderttt.models.parameter import LazyTensor
from ponderttt.models.tensors import Checkpoint, transposed_tensors
from ponderttt.models.tokenizer import Tokenizer
from ponderttt.models.tokenizer_tables import from_pieces, from_vocabulary

#: Of the float32 values that are de-quantised at once.
_ROWS_BYTES = 1 << 24


def read(path: Path, family: str | None = None) -> tuple[Checkpoint, Tokenizer]:
    """Configuration and tensors, de-quantised to float32 as they are read, and the tokenizer.

    Args:
        path: of the file.
        family: what it is expected to be; whatever it is by default.

    Raises:
        PonderTTTError: no such file, not a GGUF file, a truncated one, or one of another family.
    """
    file = GGUFFile(path)
    checkpoint, tokenizer, ends = file.checkpoint(family), file.tokenizer(), file.ends()
    # The reader has several small arrays for each token, more memory than the tokenizer that is made now.
    del file
    with _named(path):
        return checkpoint, replace(tokenizer(), ends=ends)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the file in front of whatever is found wrong with it."""
    try:
        yield
    except PonderTTTError as error:
        raise PonderTTTError(f"{path}: {error}") from None


class GGUFFile:
    """An open GGUF file.

    Raises:
        PonderTTTError: no such file, not a GGUF file, or a truncated one.
    """

    def __init__(self, path: Path | str) -> None:
        from gguf import GGUFReader

        self.path = Path(path)
        if not self.path.is_file():
            raise PonderTTTError(f"{self.path}: no such model file")
        try:
            self._reader = GGUFReader(self.path)
        except (ValueError, IndexError, KeyError, OverflowError, MemoryError, UnicodeDecodeError) as error:
            raise PonderTTTError(
                f"{self.path}: truncated or not a GGUF file; delete it and fetch the model again"
            ) from error

    def _field(self, key: str, default: Any = None) -> Any:
        """A metadata value; an error names the key if it is absent and has no default."""
        found = self._reader.get_field(key)
        if found is not None:
            return found.contents()
        if default is None:
            raise PonderTTTError(f"metadata key {key} is missing")
        return default

    def config(self, family: str | None = None) -> Shape:
        """The shape that the file's metadata declares; ``family`` is what it is expected to be, anything by default."""
        with _named(self.path):
            architecture = self._field("general.architecture")
            if architecture not in GGUF_FAMILIES:
                raise PonderTTTError(f"holds a {architecture} model; known: {', '.join(GGUF_FAMILIES)}")
            if family not in (None, architecture):
                raise PonderTTTError(f"holds a {architecture} model; family {family} expects {family}")

            def fields(key: str, default: Any = None) -> Any:
                return self._field(f"{architecture}.{key}", default)

            vocab_size = len(self._field("tokenizer.ggml.tokens"))
            tied = all(tensor.name != "output.weight" for tensor in self._reader.tensors)
            return GGUF_FAMILIES[architecture].shape(fields, vocab_size, tied)

    def checkpoint(self, family: str | None = None) -> Checkpoint:
        """Configuration and tensors, de-quantised to float32 as they are read."""
        config = self.config(family)
        naming, block = GGUF_FAMILIES[config.family], family_of(config).BLOCK
        # Every matrix of a file is [out, in].
        transposed = transposed_tensors(config)
        tensors = {}
        for tensor in self._reader.tensors:
            name = hugging_face_name(naming, block, tensor.name)
            # GGUF lists dimensions innermost first.
            stored = tuple(int(size) for size in reversed(tensor.shape))
            turned = name in transposed
            read = partial(_read, tensor, stored, partial(naming.restore, config, name), turned)
            tensors[name] = LazyTensor(tensor.name, stored[::-1] if turned else stored, read)
        return Checkpoint(self.path, config, tensors, partial(gguf_name, naming, block))

    def ends(self) -> frozenset[int]:
        """The tokens with which the file says that its model ends a text or a turn."""
        found = (self._field(f"tokenizer.ggml.{name}_token_id", -1) for name in ("eos", "eot"))
        return frozenset(int(index) for index in found if index >= 0)

    def tokenizer(self) -> Callable[[], Tokenizer]:
        """Makes the tokenizer that the file carries, and holds on to nothing else of it."""
        with _named(self.path):
            model = self._field("tokenizer.ggml.model")
            tokens, kinds = self._field("tokenizer.ggml.tokens"), self._field("tokenizer.ggml.token_type")
            if model == "gpt2":
                splitter = self._field("tokenizer.ggml.pre", "default")
                return partial(from_vocabulary, tokens, kinds, self._field("tokenizer.ggml.merges"), splitter)
            if model == "llama" and not self._field("tokenizer.ggml.add_space_prefix", True):
                return partial(from_pieces, tokens, kinds, self._field("tokenizer.ggml.scores"))
            raise PonderTTTError(
                f"its tokenizer is {model}; supported are byte-level BPE (gpt2), and pieces (llama) that put no space "
                "in front of a text"
            )


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
