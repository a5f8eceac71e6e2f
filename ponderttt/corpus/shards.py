"""Build shards: the files of packages and folders that pass every filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ponderttt.corpus.dedup import deduplicate, drop_overlap
from ponderttt.corpus.drops import Drops
from ponderttt.corpus.files import SourceFile
from ponderttt.corpus.filters import filter_files
from ponderttt.corpus.repositories import Repository, find_repositories
from ponderttt.corpus.shard_files import read_shards, shards_digest, write_shards
from ponderttt.corpus.sources import Progress, silent
from ponderttt.errors import PonderTTTError
from ponderttt.files.commands import rebuild as rebuild_command
from ponderttt.files.manifest import MANIFEST, read_manifest
from ponderttt.settings.corpus import CorpusConfig
from ponderttt.settings.mapping import as_mapping


def build_shards(
    config: CorpusConfig,
    name: str,
    cache_dir: Path | str,
    output_dir: Path | str,
    train_shards: Sequence[Path | str] = (),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Fetch, filter and deduplicate a corpus into ``output_dir/shard-*.parquet`` with a manifest.

    Args:
        config: the settings of the corpus.
        name: its name in the configuration.
        cache_dir: folder of archives, kept between runs.
        output_dir: folder of the shards.
        train_shards: shards of training corpora; files that repeat one of theirs are dropped.
        progress: called for every package fetched and every repository read.

    Returns:
        The manifest's facts: ``corpus``, ``config``, ``repositories``, ``licenses``, ``kept`` and ``repositories_kept`` (counts),
        ``drops`` (reason → files and bytes), ``train_shards`` (digests of the training files compared with).

    Raises:
        PonderTTTError: nothing is left after the filters (the message counts drops by reason), a repository is also
            in a training corpus, an archive cannot be fetched or read, or the disk is full.
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
    train_digests = []
    for folder in train_shards:
        rebuild = rebuild_command(Path(folder) / MANIFEST)
        train_digests.append(shards_digest(folder, rebuild))
        train = read_manifest(folder, "shards", rebuild, verify=False)["facts"]["corpus"]
        files = _without_training_files(files, read_shards(folder, rebuild), train, config, name, drops)
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
        "train_shards": train_digests,
    }
    write_shards(files, output_dir, facts)
    return facts


def _read_all(
    repositories: Sequence[Repository], config: CorpusConfig, drops: Drops, progress: Progress
) -> Iterator[SourceFile]:
    for done, repository in enumerate(repositories, 1):
        raw_files = repository.raw_files(config.filters.max_bytes)
        yield from filter_files(raw_files, repository.origin, config.filters, drops)
        progress(done, len(repositories), f"read {repository.origin.repo_name}")


def _without_training_files(
    files: list[SourceFile],
    train: list[SourceFile],
    train_name: str,
    config: CorpusConfig,
    name: str,
    drops: Drops,
) -> list[SourceFile]:
    shared = sorted({file.repo_name for file in files} & {file.repo_name for file in train})
    if shared:
        raise PonderTTTError(
            f"corpus {name}: the repository {shared[0]} is also in the training corpus {train_name}, and the two must be "
            "disjoint. Take it out of one of them."
        )
    threshold, permutations = (
        config.filters.near_duplicate_threshold,
        config.filters.near_duplicate_permutations,
    )
    return drop_overlap(files, train, threshold, permutations, drops)
