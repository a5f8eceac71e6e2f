"""Duplicates among more files than one process can hold: bands of signatures are joined on disk.

Of the files that repeat each other the one stays that comes first: permissive before unknown before other licenses, then more
stars, more forks, the newest, and by name.  A file is dropped if one that stays repeats it, exactly (sha1) or nearly
(estimated Jaccard similarity of word 5-grams, as in :mod:`ponderttt.corpus.dedup`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from ponderttt.corpus.hub.database import database
from ponderttt.corpus.hub.signatures import SignatureFile, similarity

#: Of files with a band in common, each is compared with so many of the first ones; thousands that share a band are copies
#: of one another, and the first of them drops the rest.
COMPARED = 64
_BATCH = 1_024

#: Rows of many files, numbered through.
_NUMBERED = """
FROM read_parquet($files, filename = true, file_row_number = true)
JOIN (SELECT unnest($files) AS filename, unnest($starts) AS start) USING (filename)
"""
_FILES = f"""
CREATE TABLE files AS
SELECT start + file_row_number AS id, blob_id, license_type, stars, forks, changed, repo_name, path
{_NUMBERED}
"""
#: Signatures themselves are no business of the database: sorted or joined they would be most of what it holds.
_SIGNED = f"""
CREATE TABLE signed AS SELECT start + file_row_number AS item, blob_id, bands {_NUMBERED}
"""
_RANKED = """
CREATE TABLE ranked AS
SELECT id, blob_id,
       row_number() OVER (ORDER BY CASE license_type WHEN 'permissive' THEN 0 WHEN 'no_license' THEN 1 ELSE 2 END,
                          stars DESC, forks DESC, changed DESC, repo_name, path, id) AS place
FROM files
"""
_EXACT = "SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY blob_id ORDER BY place) AS n FROM ranked) WHERE n > 1 ORDER BY id"
#: Candidates: place 0 and below are training files, which are nobody's duplicates.
_CANDIDATES = """
CREATE TABLE candidates AS
SELECT r.id, r.place, s.item
FROM (SELECT blob_id, min(place) AS place, arg_min(id, place) AS id FROM ranked GROUP BY blob_id) r
JOIN (SELECT blob_id, min(item) AS item FROM signed WHERE item < $own GROUP BY blob_id) s USING (blob_id)
"""
_TRAINING = """
INSERT INTO candidates
SELECT -1, 1 - row_number() OVER (ORDER BY blob_id), min(item) FROM signed WHERE item >= $own GROUP BY blob_id
"""
_KNOWN = "SELECT r.id FROM ranked r SEMI JOIN (SELECT blob_id FROM signed WHERE item >= $own) t ON r.blob_id = t.blob_id"
_PAIRS = """
CREATE TABLE pairs AS
WITH bands AS (SELECT place, unnest(bands) AS band, generate_subscripts(bands, 1) AS slot
               FROM candidates JOIN signed USING (item)),
     numbered AS (SELECT *, row_number() OVER (PARTITION BY slot, band, place > 0 ORDER BY place) AS n FROM bands),
     first AS (SELECT * FROM numbered WHERE n <= $compared)
SELECT DISTINCT f.place AS earlier, b.place AS later
FROM first f JOIN numbered b ON f.slot = b.slot AND f.band = b.band AND f.place < b.place AND b.place > 0
"""
_COMPARED = """
SELECT p.earlier, p.later, l.id, e.item, l.item
FROM pairs p JOIN candidates e ON e.place = p.earlier JOIN candidates l ON l.place = p.later
ORDER BY p.later, p.earlier
"""


def find_duplicates(
    segments: Sequence[Path],
    signatures: Sequence[Path],
    threshold: float,
    scratch: Path,
    training: Sequence[Path] = (),
) -> dict[int, str]:
    """Number of a file, counted over the segments in their order → the reason to drop it.

    Args:
        segments: Parquet files with a row for each file of the corpus.
        signatures: of :mod:`ponderttt.corpus.hub.signatures`, of the same files.
        threshold: similarity from which on two files are near duplicates.
        scratch: folder for what does not fit into memory.
        training: signatures of the training corpus; what repeats one of its files is dropped too.
    """
    reasons: dict[int, str] = {}
    signed = [*signatures, *training]
    own = sum(_lengths(signatures))
    with database(scratch) as connection, SignatureFile(scratch / "signatures.bin", signed) as found:
        connection.execute(_FILES, _numbered(segments))
        connection.execute(_RANKED)
        for (number,) in _rows(connection, _EXACT):
            reasons[number] = "exact_duplicate"
        connection.execute(_SIGNED, _numbered(signed))
        connection.execute(_CANDIDATES, {"own": own})
        copied: dict[int, str] = {}
        if training:
            connection.execute(_TRAINING, {"own": own})
            for (number,) in _rows(connection, _KNOWN, {"own": own}):
                copied[number] = "exact_copy_of_training"
        connection.execute(_PAIRS, {"compared": COMPARED})
        dropped: set[int] = set()
        for earlier, later, number, first, second in _rows(connection, _COMPARED):
            if later in dropped or earlier in dropped:
                continue
            if similarity(found[first], found[second]) < threshold:
                continue
            if earlier <= 0:
                copied.setdefault(number, "near_copy_of_training")
            else:
                dropped.add(later)
                reasons[number] = "near_duplicate"
    return copied | reasons


def _lengths(files: Sequence[Path]) -> list[int]:
    import pyarrow.parquet as pq

    return [pq.read_metadata(file).num_rows for file in files]


def _numbered(files: Sequence[Path]) -> dict[str, Any]:
    """Parameters of a query over files whose rows are numbered through."""
    starts = [0, *accumulate(_lengths(files))][:-1]
    return {"files": [str(path) for path in files], "starts": starts}


def _rows(connection: Any, query: str, parameters: dict[str, Any] | None = None) -> Iterator[tuple[Any, ...]]:
    found = connection.execute(query, parameters or {})
    while rows := found.fetchmany(_BATCH):
        yield from rows
