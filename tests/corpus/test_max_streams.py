"""A limited corpus has the first repositories that keep a file, and loses no file to one outside it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ponderttt.corpus.dedup import NearDuplicates
from ponderttt.corpus.drops import Drops
from ponderttt.corpus.files import blob_id, content_id
from ponderttt.corpus.hub.chosen import Choice, first_that_stay
from ponderttt.corpus.hub.duplicates import Copies
from ponderttt.corpus.hub.merge import merge
from ponderttt.corpus.hub.segments import segment_schema
from ponderttt.corpus.hub.selection import stable_hash
from ponderttt.corpus.hub.signatures import signature_row, signature_schema
from stack_builds import files_of, stack_corpus

#: Names of repositories in the order of their hash.
FIRST, SECOND, THIRD, FOURTH = sorted((f"owner/{letter}" for letter in "abcd"), key=stable_hash)


class Source(NamedTuple):
    """A file; equal texts make equal files."""

    repo_name: str
    path: str
    letter: str
    stars: int

    @property
    def row(self) -> dict[str, Any]:
        text = " ".join(f"{self.letter}{number}" for number in range(40))
        blank: dict[pa.DataType, Any] = {pa.string(): "", pa.int64(): 0, pa.float64(): 0.0}
        return {field.name: blank.get(field.type, []) for field in segment_schema()} | {
            "blob_id": blob_id(text.encode()),
            "content_id": content_id(text.encode()),
            "repo_name": self.repo_name,
            "path": self.path,
            "license_type": "permissive",
            "length_bytes": len(text),
            "content": text,
            "hash": stable_hash(self.repo_name),
            "stars": self.stars,
        }


def merged(folder: Path, sources: list[Source], most: int | None) -> tuple[set[str], dict[str, int]]:
    """Return what stays as ``repository/path``, and the number of drops by reason."""
    rows, near = [source.row for source in sources], NearDuplicates(0.7, 250)
    signed = [signature_row(near, row["blob_id"], row["content"]) for row in rows]
    segment, signatures = folder / "segment.parquet", folder / "signatures.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=segment_schema()), segment)
    pq.write_table(pa.Table.from_pylist(signed, schema=signature_schema()), signatures)
    corpus = stack_corpus(folder, kind="stack_v3", max_streams=most)
    facts = merge(corpus, "few", [segment], [signatures], folder / "shards", {}, Drops(), None)
    kept = {f"{file.repo_name}/{file.path}" for file in files_of(folder / "shards")}
    assert facts["repositories_kept"] == len({name.rpartition("/")[0] for name in kept})
    return kept, {reason: count["files"] for reason, count in facts["drops"].items()}


def test_no_file_is_lost_to_a_repository_that_is_not_in_the_corpus(tmp_path: Path) -> None:
    sources = [Source(FIRST, "f", "f", 1), Source(FIRST, "g", "g", 1), Source(SECOND, "f", "f", 9)]
    kept, drops = merged(tmp_path, sources, most=1)
    assert kept == {f"{FIRST}/f", f"{FIRST}/g"}
    assert drops == {"beyond_max_streams": 1}
    kept, drops = merged(tmp_path, sources, most=2)
    assert kept == {f"{FIRST}/g", f"{SECOND}/f"}
    assert drops == {"exact_duplicate": 1}


def test_the_next_repository_takes_the_place_of_one_that_copies_leave_empty(tmp_path: Path) -> None:
    sources = [
        Source(FIRST, "f", "f", 1),
        Source(SECOND, "f", "f", 9),
        Source(SECOND, "g", "g", 9),
        # It enters the corpus when the first one leaves, and then ranks first.
        Source(THIRD, "g", "g", 20),
        Source(THIRD, "h", "h", 20),
        Source(FOURTH, "f", "f", 99),
    ]
    kept, drops = merged(tmp_path, sources, most=2)
    assert kept == {f"{SECOND}/f", f"{THIRD}/g", f"{THIRD}/h"}
    assert drops == {"exact_duplicate": 2, "beyond_max_streams": 1}


class Letters:
    """Files that are equal if their letters are; of equal ones the one with the lowest rank stays."""

    def __init__(self, letters: list[int], ranks: list[int]) -> None:
        self._letters, self._ranks = letters, ranks
        self.rounds = 0

    def copies(self, numbers: np.ndarray) -> Copies:
        self.rounds += 1
        first: dict[int, int] = {}
        for number in sorted(numbers.tolist(), key=self._ranks.__getitem__):
            first.setdefault(self._letters[number], number)
        stays = set(first.values())
        return Copies({n: "exact_duplicate" for n in numbers.tolist() if n not in stays}, 0)


@pytest.mark.parametrize("seed", range(20))
def test_every_file_that_is_dropped_is_equal_to_one_that_stays(seed: int) -> None:
    draw = random.Random(seed)
    files, most = 60, 8
    starts = np.array([0, *sorted(draw.sample(range(1, files), 24))])
    letters = [draw.randrange(30) for _ in range(files)]
    choice = first_that_stay(starts, files, most, Letters(letters, draw.sample(range(files), files)).copies)
    assert choice.repositories is not None
    where = np.searchsorted(starts, np.arange(files), "right") - 1
    stays = [n for n in range(files) if where[n] in choice.repositories and n not in choice.reasons]
    assert {where[n] for n in stays} == choice.repositories
    assert {letters[n] for n in choice.reasons} <= {letters[n] for n in stays}
    # No repository before the last chosen one was skipped; if all were tried there may be fewer.
    tried = choice.repositories | {where[n] for n in choice.reasons}
    assert len(choice.repositories) == most or len(tried) == len(starts)
    assert set(range(max(choice.repositories) + 1)) <= tried


def test_thousands_of_copies_that_follow_one_another_take_few_rounds() -> None:
    letters = [0] * 5_000 + list(range(1, 5_001))
    found = Letters(letters, list(range(10_000)))
    choice = first_that_stay(np.arange(10_000), 10_000, 10, found.copies)
    assert choice.repositories == {0, *range(5_000, 5_009)}
    assert len(choice.reasons) == 4_999
    assert found.rounds < 40


def test_a_corpus_of_no_repositories_asks_for_nothing() -> None:
    found = Letters([0, 0], [0, 1])
    assert first_that_stay(np.arange(2), 2, 0, found.copies) == Choice({}, frozenset(), 0)
    assert found.rounds == 0
