"""Kinds of values that many settings share: ranges of numbers, paths, names of folders, lists without repeats."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from ponderttt.settings.mapping import UnknownName

T = TypeVar("T")

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]


def _expanded(path: str) -> str:
    """The path with ``~`` replaced by the home folder."""
    if not path.strip():
        raise ValueError(f"must name a file or a folder, got {path!r}")
    if any(ord(character) < 32 for character in path):
        raise ValueError(f"must have no control characters, got {path!r}")
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(
            f"begins with the home folder of an unknown user, got {path!r}; write './{path}' for a folder of that name"
        ) from None


def _without_braces(path: str) -> str:
    if "{" in path or "}" in path:
        raise ValueError(f"must have no braces, which the workflow reads as wildcards, got {path!r}")
    return path


def _usable_as_folder(name: str) -> str:
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(
            "is not usable as the name of a folder: use letters, digits and . _ + -, a letter or digit first"
        )
    return name


def _usable_as_variant(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError("is not usable as the name of a variant: use a-z, 0-9 and _")
    return name


def one_of(names: Collection[str]) -> AfterValidator:
    """Accept these names only."""

    def check(name: str) -> str:
        if name not in names:
            raise UnknownName(name, names)
        return name

    return AfterValidator(check)


def _without_repeats(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) != len(values):
        raise ValueError(f"names one twice: {list(values)}")
    return values


#: A file or folder on this disk; ``~`` is the home folder.
LocalPath = Annotated[str, AfterValidator(_expanded)]
#: A folder that rules of the workflow write to.
WorkflowFolder = Annotated[LocalPath, AfterValidator(_without_braces)]
#: Names that become folders, and parts of names of methods and fast weights.
FolderName = Annotated[str, AfterValidator(_usable_as_folder)]
VariantName = Annotated[str, AfterValidator(_usable_as_variant)]
#: A list in which no value is named twice.
Distinct = Annotated[
    tuple[T, ...], AfterValidator(_without_repeats), Field(json_schema_extra={"uniqueItems": True})
]
