"""Which files are kept: every filter has a reason by which its drops are counted.

Cheap questions come first, so a file that is no source code is settled by its path and one that is too large by
its size; neither is held in memory.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from ponderttt.config import FilterConfig
from ponderttt.corpus.archives import RawFile
from ponderttt.corpus.drops import Drops
from ponderttt.corpus.files import SourceFile, blob_id, content_id

EXTENSIONS = {
    "Python": (".py",),
    "JavaScript": (".js", ".mjs", ".cjs", ".jsx"),
    "Java": (".java",),
    "Go": (".go",),
}

_VENDORED = frozenset(
    "vendor vendored _vendor _vendored third_party third-party thirdparty node_modules bower_components extern _extern "
    "externals external godeps bundled".split()
)
_TEST_DATA = frozenset(
    "testdata test_data test-data testfiles test_files fixtures __fixtures__ snapshots __snapshots__ golden goldens".split()
)
_GENERATED_FOLDERS = frozenset("generated _generated __generated__ autogen dist".split())
_GENERATED_FILE = re.compile(
    r"((_pb2|_pb2_grpc|_generated|\.generated|\.pb|\.pb\.gw|\.min|-min|\.bundle)\.\w+|_string\.go)$",
    re.IGNORECASE,
)
#: Go's convention, and what other generators write on top of their files.  The latter counts in a comment or in
#: the first line of a docstring that is not indented: programs that generate code hold such words in strings.
_GENERATED_TEXT = re.compile(
    r"@generated\b|\bcode generated\b.*\bdo not edit\b|^ *this (?:file|module) (?:is|was) auto[ -]?generated\b"
    r"|^(?:#+|//+|/\*+| ?\*+|\"\"\"|\'\'\')[ \t]*(?:this\b.{0,30}?\b)?"
    r"(?:auto(?:matically)?[ -]?generated\b|generated (?:by|from|with)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_HEADER_CHARACTERS = 1_200

_SPDX_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+() -]+)")
_ASCII_ALPHANUMERIC = (string.ascii_letters + string.digits).encode()


@dataclass(frozen=True)
class Origin:
    """What all files of a repository have in common."""

    repo_name: str
    language: str
    #: SPDX expression of the repository.
    license: str
    source: str
    split: str


def is_language(path: str, language: str) -> bool:
    """Whether the extension of ``path`` belongs to ``language``."""
    return PurePosixPath(path).suffix.lower() in EXTENSIONS[language]


def path_reason(path: str, language: str) -> str | None:
    """The reason to drop a file by its path alone, or ``None``."""
    if not is_language(path, language):
        return "other_language"
    folders = {part.lower() for part in PurePosixPath(path).parts[:-1]}
    if folders & _VENDORED:
        return "vendored"
    if folders & _TEST_DATA:
        return "test_data"
    if folders & _GENERATED_FOLDERS or _GENERATED_FILE.search(path):
        return "generated"
    return None


def size_reason(size: int, filters: FilterConfig) -> str | None:
    """The reason to drop a file of ``size`` bytes, or ``None``."""
    if size == 0:
        return "empty"
    if size < filters.min_bytes:
        return "too_small"
    if size > filters.max_bytes:
        return "too_large"
    return None


def content_reason(content: bytes, text: str, filters: FilterConfig) -> str | None:
    """The reason to drop a UTF-8 file by what it says, or ``None``."""
    if b"\0" in content:
        return "binary"
    lengths = [len(line) for line in text.splitlines()]
    if max(lengths) > filters.max_line_length:
        return "long_line"
    if sum(lengths) / len(lengths) > filters.max_mean_line_length:
        return "long_mean_line"
    if _alphanumeric_share(content, text) < filters.min_alphanumeric_share:
        return "few_alphanumeric"
    if _GENERATED_TEXT.search(text, 0, _HEADER_CHARACTERS):
        return "generated"
    return None


def _alphanumeric_share(content: bytes, text: str) -> float:
    if content.isascii():
        others = len(content.translate(None, _ASCII_ALPHANUMERIC))
        return 1 - others / len(content)
    return sum(map(str.isalnum, text)) / len(text)


def stated_licenses(text: str) -> tuple[str, ...]:
    """The SPDX expressions in the head of a file, as ``SPDX-License-Identifier`` tags state them."""
    return tuple(match.strip() for match in _SPDX_TAG.findall(text[:_HEADER_CHARACTERS]))


def license_allowed(expression: str, allowed: Iterable[str]) -> bool:
    """Whether an SPDX expression grants a license of the list: any side of ``OR``, every side of ``AND``.

    Parentheses and ``WITH`` exceptions are not taken apart: such a license is allowed if listed as written.
    """
    names = {name.lower() for name in allowed}
    if expression.strip().lower() in names:
        return True
    if "(" in expression:
        return False
    alternatives = re.split(r"\s+OR\s+", expression.strip())
    return any(
        all(part.strip().lower() in names for part in re.split(r"\s+AND\s+", side)) for side in alternatives
    )


def filter_files(
    raw_files: Iterable[RawFile], origin: Origin, filters: FilterConfig, drops: Drops
) -> Iterator[SourceFile]:
    """The files of one repository that pass, in their order; each of the others is counted in ``drops``.

    Reasons: ``other_language``, ``vendored``, ``test_data``, ``generated``, ``empty``, ``too_small``,
    ``too_large``, ``license``, ``not_utf8``, ``binary``, ``long_line``, ``long_mean_line``, ``few_alphanumeric``.
    A file counts under the first reason that applies.  Generated files are known by path or by their head.
    """
    for raw in raw_files:
        reason = path_reason(raw.path, origin.language) or size_reason(raw.size, filters)
        if reason is None and not license_allowed(origin.license, filters.licenses):
            reason = "license"
        if reason is None:
            assert raw.content is not None, "a file within the size limits comes with its content"
            kept = _examine(raw.content, raw.path, origin, filters)
            if isinstance(kept, SourceFile):
                yield kept
                continue
            reason = kept
        drops.add(reason, raw.size)


def _examine(content: bytes, path: str, origin: Origin, filters: FilterConfig) -> SourceFile | str:
    """The file, or the reason to drop it."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return "not_utf8"
    reason = content_reason(content, text, filters)
    if reason:
        return reason
    stated = stated_licenses(text)
    if not all(license_allowed(expression, filters.licenses) for expression in stated):
        return "license"
    return SourceFile(
        blob_id=blob_id(content),
        content_id=content_id(content),
        repo_name=origin.repo_name,
        path=path,
        language=origin.language,
        license_type="permissive",
        detected_licenses=tuple(dict.fromkeys((origin.license, *stated))),
        src_encoding="UTF-8",
        length_bytes=len(content),
        content=text,
        source=origin.source,
        split=origin.split,
    )
