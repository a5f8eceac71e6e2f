"""Shards: the files of a corpus that passed every filter, as Parquet with a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ponderttt.config import CorpusConfig
from ponderttt.corpus.dedup import deduplicate, drop_overlap
from ponderttt.corpus.drops import Drops
from ponderttt.corpus.files import COLUMNS, SourceFile, from_table, to_table
from ponderttt.corpus.filters import filter_files
from ponderttt.corpus.repositories import Repository, find_repositories
from ponderttt.corpus.sources import Progress, silent
from ponderttt.corpus.staging import staged_folder
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.layout import rebuild as rebuild_command
from ponderttt.mapping import as_mapping
from ponderttt.provenance import MANIFEST, digest, read_manifest, write_manifest

SHARD_BYTES = 128 << 20
_PATTERN = "shard-*.parquet"


def build_shards(
    config: CorpusConfig,
    name: str,
    cache_dir: Path | str,
    output_dir: Path | str,
    train_shards: Path | str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fetch, filter and deduplicate a corpus into ``output_dir/shard-*.parquet`` with a manifest.

    Args:
        config: the corpus.
        name: what the configuration calls it.
        cache_dir: folder of archives, kept between runs.
        output_dir: folder of the shards.
        train_shards: shards of the training corpus; files that repeat one of its files are dropped.
        progress: told of every package fetched and every repository read.

    Returns:
        The manifest's facts: ``corpus``, ``config``, ``repositories``, ``licenses``, ``kept`` and ``repositories_kept`` (counts), ``drops``
        (reason → files and bytes), ``train_shards`` (digest of the files that overlap was tested against).

    Raises:
        PonderTTTError: nothing is left after the filters (the message counts the drops by reason), a repository is
            also one of the training corpus, an archive cannot be fetched or read, or the disk is full.
        CorruptFileError: the training shards differ from their manifest.
    """
    drops = Drops()
    repositories = find_repositories(config, cache_dir, progress)
    files = deduplicate(
        _read_all(repositories, config, drops, progress),
        config.filters.near_duplicate_threshold,
        config.filters.near_duplicate_permutations,
        drops,
    )
    train_digest = None
    if train_shards is not None:
        rebuild = rebuild_command(Path(train_shards) / MANIFEST)
        train_digest = shards_digest(train_shards, rebuild)
        files = _without_training_files(files, read_shards(train_shards, rebuild), config, name, drops)
    if not files:
        raise PonderTTTError(
            f"corpus {name}: no file is left after the filters ({drops.in_words()}). "
            f"Check corpora.{name}: its language, licenses, path and filters."
        )
    facts = {
        "corpus": name,
        "config": as_mapping(config),
        "repositories": [repository.facts() for repository in repositories],
        "licenses": dict(sorted(Counter(file.detected_licenses[0] for file in files).items())),
        "kept": {"files": len(files), "bytes": sum(file.length_bytes for file in files)},
        "repositories_kept": len({file.repo_name for file in files}),
        "drops": drops.as_facts(),
        "train_shards": train_digest,
    }
    write_shards(files, output_dir, facts)
    return facts


def _read_all(
    repositories: Sequence[Repository], config: CorpusConfig, drops: Drops, progress: Progress
) -> Iterator[SourceFile]:
    for done, repository in enumerate(repositories, 1):
        raw_files = repository.raw_files(config.filters.max_bytes)
        yield from filter_files(raw_files, repository.origin, config.filters, drops)
        progress(f"read {repository.origin.repo_name}", done, len(repositories))


def _without_training_files(
    files: list[SourceFile], train: list[SourceFile], config: CorpusConfig, name: str, drops: Drops
) -> list[SourceFile]:
    shared = sorted({file.repo_name for file in files} & {file.repo_name for file in train})
    if shared:
        raise PonderTTTError(
            f"corpus {name}: the repository {shared[0]} is also in the training corpus, so it is not held out. "
            "Take it out of one of the two."
        )
    threshold, permutations = (
        config.filters.near_duplicate_threshold,
        config.filters.near_duplicate_permutations,
    )
    return drop_overlap(files, train, threshold, permutations, drops)


def write_shards(
    files: Sequence[SourceFile],
    output_dir: Path | str,
    facts: dict[str, Any],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write files in order, starting a new shard when one has ``shard_bytes`` of content; all or nothing.

    Raises:
        PonderTTTError: the disk is full; what was in ``output_dir`` before is untouched.
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
    """The files of a corpus, in the order in which they were written.

    Args:
        folder: the folder of the shards.
        rebuild: the command that makes the folder again, for the error message.

    Raises:
        CorruptFileError: the manifest is missing, or a shard differs from it or is not readable.
    """
    return [file for files in iterate_shards(folder, rebuild) for file in files]


def iterate_shards(folder: Path | str, rebuild: str) -> Iterator[list[SourceFile]]:
    """:func:`read_shards`, a row group at a time: what is in memory does not grow with the corpus."""
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
    """An Arrow table with exactly ``columns``.

    Raises:
        CorruptFileError: the file is no Parquet, or has other columns.
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
    """One digest of the content of all shards of a folder, for whoever must know that they changed."""
    manifest = read_manifest(folder, "shards", rebuild, verify=False)
    return digest({shard: entry["sha256"] for shard, entry in manifest["files"].items()})
