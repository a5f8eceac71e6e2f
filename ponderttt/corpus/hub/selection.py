"""Select the files of a dataset to fetch: by language, license, size, opt-out, and whether vendored or generated."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from ponderttt.corpus.filters import license_allowed, path_reason, size_reason
from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.errors import PonderTTTError
from ponderttt.settings.corpus import CorpusConfig

#: GitHub's names of owners (those of companies have an underscore) and repositories.
_NAME = re.compile(r"[A-Za-z0-9_-]+/(?!.*\.(?i:git)$)[A-Za-z0-9._-]*")


def stable_hash(name: str) -> float:
    """Map a name to a number in [0, 1), the same on every machine and in every version."""
    return int.from_bytes(hashlib.sha256(name.lower().encode()).digest()[:8], "big") / 2**64


@dataclass(frozen=True)
class Selection:
    """The filters that need no content."""

    corpus: CorpusConfig
    #: ``owner/name``, or ``owner/`` for all of an owner; in lower case.
    opted_out: frozenset[str]

    @classmethod
    def of(cls, corpus: CorpusConfig) -> Selection:
        """Build the filters of a corpus and read its opt-out list.

        Raises:
            PonderTTTError: the list is missing, or a line names neither a repository nor an owner.
        """
        assert corpus.hub is not None
        return cls(corpus, frozenset(_opted_out(corpus.hub.opt_out)))

    def reason(self, file: Candidate) -> str | None:
        """Return the first reason to drop a file, in this order, or None."""
        hub = self.corpus.hub
        assert hub is not None
        is_code = self.corpus.kind != "text"
        if not hub.hash_from <= stable_hash(file.repo_name) < hub.hash_to:
            return "other_split"
        if self._opted_out(file.repo_name):
            return "opted_out"
        if is_code and file.language != self.corpus.language:
            return "other_language"
        if is_code or hub.license_column is not None:
            if file.license_type not in hub.license_types:
                return "license"
            allowed = self.corpus.filters.licenses
            # A license without a name cannot be on the list.
            if not all(license_allowed(name, allowed) for name in file.detected_licenses):
                return "license"
        if file.is_vendor:
            return "vendored"
        if file.is_generated:
            return "generated"
        by_path = path_reason(file.path) if is_code else None
        if by_path:
            return by_path
        if file.content is None and self.corpus.kind != "stack_v2":
            return "no_content"
        if not is_code:
            return None if file.length_bytes else "empty"
        return size_reason(file.length_bytes, self.corpus.filters)

    def _opted_out(self, repository: str) -> bool:
        name = repository.lower()
        return name in self.opted_out or f"{name.split('/', 1)[0]}/" in self.opted_out


def _opted_out(path: str | None) -> list[str]:
    if path is None:
        return []
    try:
        # Some editors put a byte-order mark first, which is no part of a name.
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise PonderTTTError(
            f"{path}: not a readable opt-out list; check the key 'hub.opt_out' of the corpus"
        ) from None
    names = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        # Any other line would never match, and its author's code would stay in.
        if not _NAME.fullmatch(line):
            raise PonderTTTError(
                f"{path}, line {number}: {line!r} names neither a repository nor an owner; write owner/name or owner/, with "
                "letters, digits, -, _ and . only, without a server's address, * or .git at the end"
            )
        names.append(line.lower())
    return names
