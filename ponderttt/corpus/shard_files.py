"""Write and read shards: the files of a corpus as Parquet with a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ponderttt.corpus.files import COLUMNS, SourceFile, from_table, to_table
from ponderttt.errors import CorruptFileError
from ponderttt.files.atomic import digest
from ponderttt.files.manifest import read_manifest, write_manifest
from ponderttt.files.staging import staged_folder

SHARD_BYTES = 128 << 20
_PATTERN = "shard-*.parquet"


def write_shards(
    files: Sequence[SourceFile],
    output_dir: Path | str,
    facts: dict[str, Any],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write files in order, in shards of up to ``shard_bytes`` of content; all or nothing.

    Raises:
        PonderTTTError: the disk is full; earlier files in ``output_dir`` are untouched.
    """
    import pyarrow.parquet as pq

    with staged_folder(output_dir, _PATTERN) as staged:
        rows: dict[str, int | None] = {}
        for group in _groups(files, shard_bytes):
            shard = f"shard-{len(rows):05d}.parquet"
            pq.write_table(to_table(group), staged / shard, compression="zstd")
            rows[shard] = len(group)
        write_manifest(staged, "shards", rows, facts)


def _groups(files: Sequence[SourceFile], limit: int) -> Iterator[list[SourceFile]]:
    group: list[SourceFile] = []
    size = 0
    for file in files:
        if group and size + file.length_bytes > limit:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.length_bytes
    if group:
        yield group


def read_shards(folder: Path | str, rebuild: str) -> list[SourceFile]:
    """Read the files of a corpus, in the order of writing.

    Args:
        folder: folder of the shards.
        rebuild: the command that rebuilds the folder, for the error message.

    Raises:
        CorruptFileError: the manifest is missing, or a shard differs from it or is not readable.
    """
    return [file for files in iterate_shards(folder, rebuild) for file in files]


def iterate_shards(folder: Path | str, rebuild: str) -> Iterator[list[SourceFile]]:
    """Read shards as :func:`read_shards` does, one row group at a time, so that memory does not grow with the corpus."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    manifest = read_manifest(folder, "shards", rebuild)
    for shard in manifest["files"]:
        path = Path(folder) / shard
        try:
            with pq.ParquetFile(path) as reader:
                _check_columns(path, reader.schema_arrow.names, COLUMNS, rebuild)
                for group in range(reader.num_row_groups):
                    yield from_table(reader.read_row_group(group))
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error, rebuild) from None


def read_parquet(path: Path, columns: Sequence[str], rebuild: str) -> Any:
    """Read an Arrow table with exactly these columns.

    Raises:
        CorruptFileError: the file is not Parquet, or has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error, rebuild) from None
    _check_columns(path, table.column_names, columns, rebuild)
    return table


def _unreadable(path: Path, error: Exception, rebuild: str) -> CorruptFileError:
    reason = " ".join(str(error).split())[:100]
    return CorruptFileError(f"{path}: not readable as Parquet ({reason}). Rebuild it: {rebuild}")


def _check_columns(path: Path, found: Sequence[str], columns: Sequence[str], rebuild: str) -> None:
    if tuple(found) != tuple(columns):
        raise CorruptFileError(f"{path}: has the columns of another version. Rebuild it: {rebuild}")


def shards_digest(folder: Path | str, rebuild: str) -> str:
    """Return one digest of the content of all shards of a folder."""
    manifest = read_manifest(folder, "shards", rebuild, verify=False)
    return digest({shard: entry["sha256"] for shard, entry in manifest["files"].items()})
