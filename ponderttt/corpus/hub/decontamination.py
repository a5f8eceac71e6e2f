"""Find files that hold the problem or the solution of a benchmark.

A file is contaminated if it shares four shingles with the prompt and reference solution of one problem (after Brown et al.
2020, arXiv:2005.14165, appendix C).  A shingle is a run of 13 tokens with at least four different words, so that tables of
numbers and rows of brackets do not count.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ponderttt.errors import PonderTTTError

SHINGLE_TOKENS = 13
DISTINCT_WORDS = 4
HITS = 4
#: Fields of prompts and reference solutions in the benchmarks of the study.
FIELDS = tuple(
    "prompt canonical_solution text code question answer problem solution skeleton solution_code question_content starter_code Question".split()
)
_TOKEN = re.compile(r"\w+|[^\w\s]")


def shingles(text: str) -> Iterator[int]:
    """Yield 64-bit hashes of the shingles of a text."""
    tokens = _TOKEN.findall(text)
    words: Counter[str] = Counter()
    for place, token in enumerate(tokens):
        if token.isalpha():
            words[token] += 1
        if place >= SHINGLE_TOKENS:
            gone = tokens[place - SHINGLE_TOKENS]
            if gone.isalpha():
                words[gone] -= 1
                if not words[gone]:
                    del words[gone]
        if place >= SHINGLE_TOKENS - 1 and len(words) >= DISTINCT_WORDS:
            joined = "\0".join(tokens[place - SHINGLE_TOKENS + 1 : place + 1])
            yield int.from_bytes(
                hashlib.blake2b(joined.encode("utf-8", "replace"), digest_size=8).digest(), "big"
            )


@dataclass(frozen=True)
class Decontamination:
    """An index of benchmark problems by shingle."""

    #: Shingle → numbers of the problems that have it.
    problems: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[str]) -> Decontamination:
        """Index the problems in some files.

        Raises:
            PonderTTTError: a file is missing, of an unknown kind, or without any of :data:`FIELDS`.
        """
        found: dict[int, list[int]] = {}
        number = 0
        for path in paths:
            for text in problem_texts(Path(path).expanduser()):
                for shingle in set(shingles(text)):
                    found.setdefault(shingle, []).append(number)
                number += 1
        return cls({shingle: tuple(numbers) for shingle, numbers in found.items()})

    def is_contaminated(self, text: str) -> bool:
        """Return whether a text shares :data:`HITS` shingles with one problem."""
        if not self.problems:
            return False
        hits: Counter[int] = Counter()
        for shingle in set(shingles(text)):
            for problem in self.problems.get(shingle, ()):
                hits[problem] += 1
                if hits[problem] >= HITS:
                    return True
        return False


def problem_texts(path: Path) -> Iterator[str]:
    """Yield the prompt and reference solution of each problem in a file, as one text."""
    records = _records(path)
    if not records:
        raise PonderTTTError(f"{path}: holds no problems; check the key 'hub.decontaminate' of the corpus")
    for record in records:
        texts = [record[name] for name in FIELDS if isinstance(record.get(name), str)]
        if not texts:
            raise PonderTTTError(
                f"{path}: a problem has none of the fields {', '.join(FIELDS)}, only {', '.join(record)}; rename one, or take "
                "the file out of hub.decontaminate"
            )
        yield "\n".join(texts)


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
            return rows
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
        found = (
            json.loads(text)
            if text.lstrip().startswith("[")
            # Not splitlines, which also splits at Unicode separators inside strings.
            else [json.loads(line) for line in text.split("\n") if line.strip()]
        )
    except FileNotFoundError:
        raise PonderTTTError(
            f"{path}: no such file of benchmark problems; check the key 'hub.decontaminate' of the corpus"
        ) from None
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise PonderTTTError(
            f"{path}: not readable as JSON, JSON Lines or Parquet ({' '.join(str(error).split())[:100]}); fetch it again"
        ) from None
    return [record for record in found if isinstance(record, dict)]
