"""Find duplicates among more files than one process can hold: bands of signatures are joined on disk.

Among files that repeat each other the first one stays: permissive before unknown before other licenses, then more stars,
more forks, the newest, and by name.  A file is dropped if one that stays repeats it, exactly (sha1) or nearly (estimated
Jaccard similarity of word 5-grams, as in :mod:`ponderttt.corpus.dedup`).  A held-out file is also dropped if a file of the
training corpus repeats it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ponderttt.corpus.hub.database import NUMBERED, database, numbered, row_counts, rows_of
from ponderttt.corpus.hub.signatures import SignatureFile, similarity

#: A file of a corpus is compared with this many of the first files that share a band with it.  If thousands share a band,
#: most are copies, which the first ones drop; exceptions are counted.  Training files have no such limit: none of them is a
#: copy of another.
COMPARED = 64

_FILES = f"""
CREATE TABLE files AS
SELECT start + file_row_number AS id, blob_id, license_type, stars, forks, changed, repo_name, path
{NUMBERED}
"""
#: Rows of the corpus have the numbers of their files; those of the training corpus follow.  The signatures themselves stay
#: out of the database, where they would be most of the data.
_SIGNED = f"""
CREATE TABLE signed AS SELECT start + file_row_number AS id, blob_id, bands {NUMBERED}
"""
_TRAINING = """
CREATE TABLE training AS SELECT blob_id, min(id) AS id FROM signed WHERE id >= $own GROUP BY blob_id
"""
_RANKED = """
CREATE OR REPLACE TABLE ranked AS
SELECT id, blob_id,
       row_number() OVER (ORDER BY CASE license_type WHEN 'permissive' THEN 0 WHEN 'no_license' THEN 1 ELSE 2 END,
                          stars DESC, forks DESC, changed DESC, repo_name, path, id) AS place
FROM files
"""
_THESE = "SEMI JOIN numbers USING (id)"
_EXACT = """
SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY blob_id ORDER BY place) AS n FROM ranked)
WHERE n > 1 ORDER BY id
"""
_STAYS = """
CREATE OR REPLACE TABLE stays AS
SELECT arg_min(id, place) AS id, min(place) AS place, blob_id FROM ranked GROUP BY blob_id
"""
_BANDS = "unnest(bands) AS band, generate_subscripts(bands, 1) AS slot"
_SHARED = f"""
CREATE OR REPLACE TABLE shared AS
SELECT place, slot, band, row_number() OVER same AS n
FROM (SELECT place, {_BANDS} FROM stays JOIN signed USING (id))
WINDOW same AS (PARTITION BY slot, band ORDER BY place)
QUALIFY row_number() OVER same > 1 OR lead(place) OVER same IS NOT NULL
"""
_PAIRS = """
CREATE OR REPLACE TABLE pairs AS
SELECT DISTINCT f.place AS earlier, b.place AS later
FROM shared f JOIN shared b ON f.slot = b.slot AND f.band = b.band AND f.place < b.place
WHERE f.n <= $compared
"""
_COMPARED = """
SELECT e.id, l.id FROM pairs p JOIN stays e ON e.place = p.earlier JOIN stays l ON l.place = p.later
ORDER BY p.later, p.earlier
"""
_TRUNCATED = """
SELECT count(*) FROM (SELECT DISTINCT slot, band FROM shared SEMI JOIN stays USING (place) WHERE n > $compared)
"""
_KNOWN = "SELECT id FROM stays SEMI JOIN training USING (blob_id) ORDER BY id"
_SOUGHT = f"""
CREATE OR REPLACE TABLE sought AS SELECT id, {_BANDS} FROM stays JOIN signed USING (id)
"""
_MET = f"""
CREATE OR REPLACE TABLE met AS
SELECT id, slot, band FROM (SELECT id, {_BANDS} FROM signed SEMI JOIN training USING (id))
SEMI JOIN (SELECT DISTINCT slot, band FROM sought) USING (slot, band)
"""
#: Without an order, so that the first pairs arrive before the last are known: there may be far more pairs than files.
_MEETING = """
SELECT s.id, m.id FROM (SELECT * FROM sought WHERE slot = $slot) s JOIN (SELECT * FROM met WHERE slot = $slot) m
ON s.band = m.band
"""


class Copies(NamedTuple):
    """The copies among some files."""

    #: Number of a file, counted over the segments in order → the reason to drop it.
    reasons: dict[int, str]
    #: Bands with a file that stays though it was not compared with all files before it.
    truncated_bands: int


class Duplicates:
    """The files of a corpus and of its training corpus, as a database that finds copies."""

    def __init__(self, connection: Any, signatures: SignatureFile, threshold: float, held_out: bool) -> None:
        self._connection, self._signatures = connection, signatures
        self._threshold, self._held_out = threshold, held_out

    def repositories(self) -> np.ndarray:
        """Return the number of each repository's first file, ascending, if the files of each are neighbours."""
        found = rows_of(self._connection, "SELECT min(id) FROM files GROUP BY repo_name ORDER BY 1")
        return np.fromiter((number for (number,) in found), np.int64)

    def copies(self, numbers: np.ndarray | None = None) -> Copies:
        """Find the copies among the files with these numbers, or among all; others are not compared."""
        if numbers is None:
            self._connection.execute(_RANKED)
        else:
            with self._listed(numbers):
                self._connection.execute(f"{_RANKED} {_THESE}")
        reasons = {number: "exact_duplicate" for (number,) in rows_of(self._connection, _EXACT)}
        self._connection.execute(_STAYS)
        near, truncated = self._near_duplicates()
        reasons |= dict.fromkeys(near, "near_duplicate")
        if self._held_out:
            known = [number for (number,) in rows_of(self._connection, _KNOWN)]
            reasons |= dict.fromkeys(known, "exact_copy_of_training")
            self._forget("stays", known)
            reasons |= dict.fromkeys(self._near_training(), "near_copy_of_training")
        return Copies(reasons, truncated)

    def _near_duplicates(self) -> tuple[list[int], int]:
        """Drop files that an earlier one repeats; return them and how many bands were truncated."""
        self._connection.execute(_SHARED)
        self._connection.execute(_PAIRS, {"compared": COMPARED})
        dropped: set[int] = set()
        for earlier, later in rows_of(self._connection, _COMPARED):
            if earlier not in dropped and later not in dropped and self._similar(earlier, later):
                dropped.add(later)
        found = sorted(dropped)
        self._forget("stays", found)
        (truncated,) = self._connection.execute(_TRUNCATED, {"compared": COMPARED}).fetchone()
        self._connection.execute("DROP TABLE pairs; DROP TABLE shared")
        return found, truncated

    def _near_training(self) -> list[int]:
        """Find the files that a training file repeats, one slot of bands after the other."""
        self._connection.execute(_SOUGHT)
        self._connection.execute(_MET)
        (slots,) = self._connection.execute("SELECT coalesce(max(slot), 0) FROM met").fetchone()
        found: list[int] = []
        for slot in range(1, slots + 1):
            near: set[int] = set()
            for number, training in rows_of(self._connection, _MEETING, {"slot": slot}):
                if number not in near and self._similar(number, training):
                    near.add(number)
            self._forget("sought", sorted(near))
            found += sorted(near)
        self._connection.execute("DROP TABLE met; DROP TABLE sought")
        return found

    def _similar(self, first: int, second: int) -> bool:
        return similarity(self._signatures[first], self._signatures[second]) >= self._threshold

    def _forget(self, table: str, numbers: Sequence[int]) -> None:
        with self._listed(numbers):
            self._connection.execute(f"DELETE FROM {table} WHERE id IN (SELECT id FROM numbers)")

    @contextlib.contextmanager
    def _listed(self, numbers: Iterable[int]) -> Iterator[None]:
        """Provide the table ``numbers`` inside the block."""
        import pyarrow as pa

        self._connection.register("numbers", pa.table({"id": pa.array(numbers, pa.int64())}))
        try:
            yield
        finally:
            self._connection.unregister("numbers")


@contextlib.contextmanager
def open_duplicates(
    segments: Sequence[Path],
    signatures: Sequence[Path],
    threshold: float,
    scratch: Path,
    training: Sequence[Path] = (),
) -> Iterator[Duplicates]:
    """Open the database of a corpus' files.

    Args:
        segments: Parquet files with one row per file of the corpus; at least one.
        signatures: files of :mod:`ponderttt.corpus.hub.signatures` with the same rows in the same order.
        threshold: lowest similarity of near duplicates.
        scratch: folder for what does not fit into memory.
        training: signatures of the training corpus; repeats of its files are copies too.
    """
    signed = [*signatures, *training]
    with database(scratch) as connection, SignatureFile(scratch / "signatures.bin", signed) as found:
        connection.execute(_FILES, numbered(segments))
        connection.execute(_SIGNED, numbered(signed))
        connection.execute(_TRAINING, {"own": sum(row_counts(signatures))})
        yield Duplicates(connection, found, threshold, bool(training))
