"""Drop exact and near duplicates within a corpus and between two corpora.

Exact: equal sha1 of the bytes.  Near: MinHash over word 5-grams with locality-sensitive hashing, as in The Stack v2
(Lozhkov et al. 2024, arXiv:2402.19173, section 2.3; Broder 1997).  Two files are near duplicates if the estimated Jaccard
similarity of their sets of 5-grams is at least the threshold; the first in order stays.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ponderttt.corpus.drops import Drops
from ponderttt.corpus.files import SourceFile

SHINGLE_WORDS = 5
PERMUTATION_SEED = 1

_WORD = re.compile(r"\w+")
#: Shingles per step: keeps the table of permuted hashes (250 × 4 bytes each) in the processor's cache.
_BATCH = 512
_GOLDEN = 0x9E3779B97F4A7C15
#: Number of words to keep hashes of, and the longest of them in characters: about 130 bytes each, 35 MB in all.
CACHED_WORDS, _CACHED_LENGTH = 1 << 18, 64


class _WordHashes(dict[str, int]):
    """Word → 64-bit hash, the same in every process, and computed once for most words.

    New words (numbers, names) never end, so a full table is cleared; frequent words soon return.
    """

    def __missing__(self, word: str) -> int:
        value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        if len(word) <= _CACHED_LENGTH:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = value
        return value


class NearDuplicates:
    """An index of texts that finds the one that another text nearly repeats."""

    def __init__(self, threshold: float, permutations: int) -> None:
        """
        Args:
            threshold: lowest estimated Jaccard similarity of near duplicates.
            permutations: length of a signature.
        """
        from datasketch import MinHash, MinHashLSH

        self._threshold = threshold
        self._words = _WordHashes()
        self._index: Any = MinHashLSH(threshold=threshold, num_perm=permutations)
        # All signatures share the permutations of one object, since creating them takes longer than most files.
        self._blank: Any = MinHash(num_perm=permutations, seed=PERMUTATION_SEED, hashfunc=int)
        self._signatures: dict[str, Any] = {}

    @property
    def band_ranges(self) -> tuple[tuple[int, int], ...]:
        """Start and end of each band of a signature; texts with an equal band are compared."""
        return tuple(self._index.hashranges)

    def shingles(self, text: str) -> np.ndarray:
        """Return sorted distinct 32-bit hashes of a text's word 5-grams; one hash of all words if fewer than 5."""
        words = _WORD.findall(text)
        if not words:
            return np.empty(0, np.uint32)
        hashes = np.fromiter(map(self._words.__getitem__, words), np.uint64, len(words))
        width = min(SHINGLE_WORDS, len(words))
        count = len(words) - width + 1
        mixed = np.zeros(count, np.uint64)
        for offset in range(width):
            # Odd multipliers that differ by position make the hash depend on the order of words.
            mixed = (mixed ^ hashes[offset : offset + count]) * np.uint64(_GOLDEN + 2 * offset)
            mixed ^= mixed >> np.uint64(29)
        return np.unique((mixed >> np.uint64(32)).astype(np.uint32))

    def signature(self, text: str) -> Any:
        """Return the MinHash of a text; None for a text without words."""
        shingles = self.shingles(text)
        if not len(shingles):
            return None
        signature = self._blank.copy()
        for start in range(0, len(shingles), _BATCH):
            signature.update_batch(shingles[start : start + _BATCH].tolist())
        return signature

    def find(self, signature: Any) -> str | None:
        """Return the key of the most similar near duplicate, the smallest key among equals; None without one."""
        candidates = [
            (-self._signatures[key].jaccard(signature), key) for key in self._index.query(signature)
        ]
        close = [(similarity, key) for similarity, key in candidates if -similarity >= self._threshold]
        return min(close)[1] if close else None

    def add(self, key: str, signature: Any) -> None:
        """Index a signature under a new key."""
        self._index.insert(key, signature)
        self._signatures[key] = signature


def deduplicate(
    files: Iterable[SourceFile], threshold: float, permutations: int, drops: Drops
) -> list[SourceFile]:
    """Drop files that repeat an earlier one, exactly or nearly; count drops by reason."""
    seen: set[str] = set()
    index = NearDuplicates(threshold, permutations)
    kept = []
    for file in files:
        if file.blob_id in seen:
            drops.add("exact_duplicate", file.length_bytes)
            continue
        signature = index.signature(file.content)
        if signature is not None:
            if index.find(signature) is not None:
                drops.add("near_duplicate", file.length_bytes)
                continue
            index.add(file.blob_id, signature)
        seen.add(file.blob_id)
        kept.append(file)
    return kept


@dataclass(frozen=True)
class Overlap:
    """What two corpora share; false if they are disjoint."""

    repositories: tuple[str, ...]
    #: Pairs of (file of the first, file of the second) as ``repository/path``.
    exact: tuple[tuple[str, str], ...]
    near: tuple[tuple[str, str], ...]

    def __bool__(self) -> bool:
        return bool(self.repositories or self.exact or self.near)


def overlap(
    train: Sequence[SourceFile], heldout: Sequence[SourceFile], threshold: float, permutations: int
) -> Overlap:
    """Find what ``heldout`` shares with ``train``: names of repositories, equal files and near duplicates."""
    names = {file.blob_id: f"{file.repo_name}/{file.path}" for file in reversed(train)}
    index = NearDuplicates(threshold, permutations)
    unique = {file.blob_id: file for file in reversed(train)}
    for key, file in unique.items():
        signature = index.signature(file.content)
        if signature is not None:
            index.add(key, signature)
    exact, near = [], []
    for file in heldout:
        here = f"{file.repo_name}/{file.path}"
        if file.blob_id in names:
            exact.append((names[file.blob_id], here))
            continue
        signature = index.signature(file.content)
        found = index.find(signature) if signature is not None else None
        if found is not None:
            near.append((names[found], here))
    shared = {file.repo_name for file in train} & {file.repo_name for file in heldout}
    return Overlap(tuple(sorted(shared)), tuple(exact), tuple(near))


def drop_overlap(
    heldout: Sequence[SourceFile],
    train: Sequence[SourceFile],
    threshold: float,
    permutations: int,
    drops: Drops,
) -> list[SourceFile]:
    """Drop files of ``heldout`` that repeat one of ``train``, exactly or nearly; count drops."""
    shared = overlap(train, heldout, threshold, permutations)
    exact = {name for _, name in shared.exact}
    near = {name for _, name in shared.near}
    kept = []
    for file in heldout:
        name = f"{file.repo_name}/{file.path}"
        if name in exact or name in near:
            drops.add(
                "exact_copy_of_training" if name in exact else "near_copy_of_training", file.length_bytes
            )
        else:
            kept.append(file)
    return kept
