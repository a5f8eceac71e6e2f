"""Open a GGUF file and read its metadata by type; every error names the key."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from ponderttt.errors import PonderTTTError

#: Magic numbers of the formats before GGUF.
_OLDER = (b"lmgg", b"fmgg", b"tjgg", b"algg")
_VERSIONS = (2, 3)
#: Errors of the reader that are not those of a truncated file, and how they are put to the user.
_REASONS = (
    (r"Duplicate (\S+) already in list", "metadata key {} is in the file twice"),
    (r"Found duplicated tensor with name (\S+)", "tensor {} is in the file twice"),
    (
        r"(\d+)\)? is not a valid GGMLQuantizationType",
        "a tensor has the type {}, which is not known; convert the model again",
    ),
)


def open_reader(path: Path) -> Any:
    """Return the ``gguf.GGUFReader`` of a file.

    Raises:
        PonderTTTError: not a GGUF file, a truncated one, one of another version or byte order, or a part of one.
    """
    from gguf import GGUFReader

    with path.open("rb") as file:
        magic, version = file.read(4), int.from_bytes(file.read(4), "little")
    if magic in _OLDER:
        raise PonderTTTError("a file of a format before GGUF; convert the model again")
    if magic == b"GGUF" and version not in _VERSIONS and version:
        # The reader would swap the bytes of numbers in the header and not those of tensors.
        if version & 0xFFFF == 0:
            raise PonderTTTError(
                "its numbers are big-endian, only little-endian is supported; run gguf-convert-endian FILE little"
            )
        raise PonderTTTError(
            f"GGUF version {version} is not supported, only {' and '.join(map(str, _VERSIONS))}; convert the model again"
        )
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, UnicodeDecodeError) as error:
        for pattern, reason in _REASONS:
            if found := re.search(pattern, str(error)):
                raise PonderTTTError(reason.format(found[1])) from error
        raise PonderTTTError("truncated or not a GGUF file; delete it and fetch the model again") from error
    metadata = Metadata(reader)
    if (parts := metadata.whole("split.count", 1, least=0)) > 1:
        part = metadata.whole("split.no", 0, least=0) + 1
        raise PonderTTTError(f"part {part} of {parts} of a file; join them with llama-gguf-split --merge")
    return reader


def written_as(value: float) -> float:
    """Return the decimal number that a float32 of a file was written as: 1e-5, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


class Metadata:
    """Metadata of an open file whose keys start with ``prefix``.

    Each method takes a key and a default; a key that is absent and has no default is an error.
    An array of equal numbers, one for each block, is that number.
    """

    def __init__(self, reader: Any, prefix: str = "") -> None:
        self._reader = reader
        self._prefix = prefix

    def under(self, prefix: str) -> Metadata:
        """Return the metadata whose keys start with ``prefix``."""
        return Metadata(self._reader, prefix)

    def _value(self, key: str, default: Any) -> Any:
        name = self._prefix + key
        found = self._reader.get_field(name)
        if found is None:
            if default is None:
                raise PonderTTTError(f"metadata key {name} is missing")
            return default
        try:
            return found.contents()
        except UnicodeDecodeError as error:
            raise PonderTTTError(
                f"metadata key {name} holds {error.object[:32]!r}, which is not UTF-8"
            ) from None

    def _wrong(self, key: str, expected: str, value: Any) -> PonderTTTError:
        shown = str(value)
        shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
        return PonderTTTError(f"metadata key {self._prefix}{key} must be {expected}, got {shown}")

    def _scalar(self, key: str, default: Any) -> Any:
        value = self._value(key, default)
        if isinstance(value, list) and value and all(other == value[0] for other in value):
            return value[0]
        return value

    def whole(self, key: str, default: int | None = None, least: int = 1) -> int:
        """Return a whole number of at least ``least``."""
        value = self._scalar(key, default)
        if type(value) is not int or value < least:
            raise self._wrong(key, f"one whole number of at least {least}", value)
        return value

    def number(self, key: str, default: float | None = None, *, or_zero: bool = False) -> float:
        """Return a finite number greater than 0, or 0 if that is allowed."""
        value = self._scalar(key, default)
        if type(value) not in (int, float) or not 0 <= value < math.inf or (value == 0 and not or_zero):
            raise self._wrong(
                key, "one number of at least 0" if or_zero else "one number greater than 0", value
            )
        return written_as(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self._scalar(key, default)
        if type(value) is not bool:
            raise self._wrong(key, "true or false", value)
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def entries(self, key: str, kind: type, length: int | None = None) -> list[Any]:
        """Return an array of values of one type, of ``length`` values if given."""
        value = self._value(key, None)
        if not isinstance(value, list) or not all(isinstance(entry, kind) for entry in value):
            raise self._wrong(key, f"an array of {kind.__name__}", value)
        if length not in (None, len(value)):
            raise self._wrong(key, f"an array of {length} values, one for each token", f"{len(value)} values")
        return value
