"""Compare a held-out corpus with the training corpus: files, signatures, and names of repositories.

A training corpus from a dataset has its signatures next to its shards; those of other corpora are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ponderttt.corpus.dedup import NearDuplicates
from ponderttt.corpus.hub.database import NUMBERED, database, numbered, rows_of
from ponderttt.corpus.hub.signatures import signature_row, signature_schema
from ponderttt.corpus.shard_files import iterate_shards
from ponderttt.files.atomic import sha256_file
from ponderttt.files.manifest import read_manifest, verify_file
from ponderttt.settings.corpus import FilterConfig

SIGNATURES = "signatures.parquet"


def signature_facts(folder: Path, filters: FilterConfig) -> dict[str, Any]:
    """Return the facts about the signatures next to the shards: ``files`` (sha256, bytes) and ``made`` (settings)."""
    path = folder / SIGNATURES
    entry = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    return {"files": {SIGNATURES: entry}, "made": _made(filters)}


def _made(filters: FilterConfig) -> dict[str, Any]:
    """Return the settings that signatures depend on."""
    return {
        "threshold": filters.near_duplicate_threshold,
        "permutations": filters.near_duplicate_permutations,
    }


def training_signatures(shards: Path | str, filters: FilterConfig, scratch: Path, rebuild: str) -> Path:
    """Return the signatures of a finished corpus: its own if made with the same settings, else new ones in ``scratch``.

    Args:
        shards: folder of the training corpus.
        filters: filters of the held-out corpus.
        scratch: folder for new signatures.
        rebuild: the command that rebuilds the shards.

    Raises:
        CorruptFileError: shards or signatures are missing or differ from the manifest.
    """
    found = read_manifest(shards, "shards", rebuild, verify=False)["facts"].get("signatures")
    if found is not None and found["made"] == _made(filters):
        return verify_file(shards, found, SIGNATURES, rebuild)
    return _sign(shards, filters, scratch / "training.parquet", rebuild)


def _sign(shards: Path | str, filters: FilterConfig, target: Path, rebuild: str) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    near = NearDuplicates(filters.near_duplicate_threshold, filters.near_duplicate_permutations)
    schema = signature_schema()
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for files in iterate_shards(shards, rebuild):
            rows = [signature_row(near, file.blob_id, file.content) for file in files]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return target


def shared_repository(
    segments: Sequence[Path], shards: Path | str, scratch: Path, rebuild: str
) -> str | None:
    """Return the first repository, by name without case, with files both in the segments and in a finished corpus.

    Raises:
        CorruptFileError: the shards are missing or differ from their manifest.
    """
    query = """
        SELECT min(repo_name) FROM (SELECT DISTINCT repo_name, lower(repo_name) AS name FROM read_parquet($segments)) s
        SEMI JOIN (SELECT DISTINCT lower(repo_name) AS name FROM read_parquet($shards)) t USING (name)
    """
    files = {"segments": [str(path) for path in segments], "shards": _shard_files(shards, rebuild)}
    with database(scratch) as connection:
        found: str | None = connection.execute(query, files).fetchone()[0]
    return found


def shared_documents(segments: Sequence[Path], shards: Path | str, scratch: Path, rebuild: str) -> list[int]:
    """Return the files, numbered over the segments in order, whose bytes equal those of a file of a finished corpus.

    Raises:
        CorruptFileError: the shards are missing or differ from their manifest.
    """
    query = f"""
        SELECT id FROM (SELECT start + file_row_number AS id, blob_id {NUMBERED})
        SEMI JOIN (SELECT blob_id FROM read_parquet($shards)) USING (blob_id) ORDER BY id
    """
    files = {**numbered(segments), "shards": _shard_files(shards, rebuild)}
    with database(scratch) as connection:
        return [number for (number,) in rows_of(connection, query, files)]


def _shard_files(shards: Path | str, rebuild: str) -> list[str]:
    names = read_manifest(shards, "shards", rebuild)["files"]
    return [str(Path(shards) / name) for name in names]
