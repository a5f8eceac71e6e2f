"""Merge the segments of all buckets into the shards of a corpus, without duplicates, one row group at a time."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ponderttt.corpus.drops import Drops
from ponderttt.corpus.files import COLUMNS, shard_schema
from ponderttt.corpus.hub.chosen import Choice, choose
from ponderttt.corpus.hub.database import row_counts
from ponderttt.corpus.hub.duplicates import open_duplicates
from ponderttt.corpus.hub.signatures import signature_schema
from ponderttt.corpus.hub.training import (
    SIGNATURES,
    shared_documents,
    shared_repository,
    signature_facts,
    training_signatures,
)
from ponderttt.corpus.shard_files import SHARD_BYTES
from ponderttt.errors import PonderTTTError
from ponderttt.files.manifest import write_manifest
from ponderttt.files.staging import staged_folder
from ponderttt.settings.corpus import CorpusConfig


class Kept(NamedTuple):
    """Counts of what the shards hold."""

    rows: dict[str, int | None]
    files: int
    bytes: int
    licenses: dict[str, int]
    repositories: int


def merge(
    corpus: CorpusConfig,
    name: str,
    segments: Sequence[Path],
    signatures: Sequence[Path],
    output_dir: Path | str,
    facts: dict[str, Any],
    drops: Drops,
    train_shards: Path | str | None,
    rebuild_train: str = "",
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Write ``output_dir/shard-*.parquet`` and the signatures of their files with a manifest; all or nothing.

    Args:
        corpus: the settings of the corpus.
        name: its name in the configuration.
        segments: Parquet files of :mod:`ponderttt.corpus.hub.segments`, in order.
        signatures: one file per segment, with the same rows in the same order.
        output_dir: folder of the shards.
        facts: facts of the manifest besides ``kept``, ``licenses``, ``drops`` and ``truncated_bands``.
        drops: what earlier stages dropped; duplicates are added.
        train_shards: shards of the training corpus; files that repeat one of its files are dropped.  Documents of a running
            text are dropped only if they are equal, and only if the configuration says how a document begins.
        rebuild_train: the command that rebuilds them.
        shard_bytes: bytes of content after which a new shard begins.

    Raises:
        PonderTTTError: nothing is left, a repository is also in the training corpus, or the disk is full.
    """
    with staged_folder(output_dir, "*.parquet") as staged:
        scratch = staged / "scratch"
        scratch.mkdir()
        # A bucket without files has no segment.
        choice = (
            _without_copies(corpus, name, segments, signatures, scratch, train_shards, rebuild_train)
            if segments
            else Choice({}, None, 0)
        )
        kept = _write(segments, signatures, choice, staged, drops, shard_bytes)
        shutil.rmtree(scratch)
        if not kept.files:
            raise PonderTTTError(
                f"corpus {name}: no file is left after the filters ({drops.in_words()}). "
                f"Check corpora.{name}: its language, licenses, hub and filters."
            )
        whole = {
            **facts,
            "licenses": kept.licenses,
            "kept": {"files": kept.files, "bytes": kept.bytes},
            "repositories_kept": kept.repositories,
            "drops": drops.as_facts(),
            "truncated_bands": choice.truncated_bands,
            "signatures": signature_facts(staged, corpus.filters),
        }
        write_manifest(staged, "shards", kept.rows, whole)
    return whole


def _without_copies(
    corpus: CorpusConfig,
    name: str,
    segments: Sequence[Path],
    signatures: Sequence[Path],
    scratch: Path,
    train_shards: Path | str | None,
    rebuild_train: str,
) -> Choice:
    if corpus.is_running_text:
        # A text may repeat itself, and its only repository is named after its split, so neither is an overlap.
        # A row that is a line, not a document, may occur in any other text.
        known: list[int] = []
        if train_shards is not None and corpus.hub is not None and corpus.hub.document_start is not None:
            known = shared_documents(segments, train_shards, scratch, rebuild_train)
        return Choice(dict.fromkeys(known, "exact_copy_of_training"), None, 0)
    training = []
    if train_shards is not None:
        shared = shared_repository(segments, train_shards, scratch, rebuild_train)
        if shared is not None:
            raise PonderTTTError(
                f"corpus {name}: the repository {shared} is also in the training corpus, so it is not held out. "
                "Set hub.hash_from and hub.hash_to so that the two ranges do not overlap."
            )
        training = [training_signatures(train_shards, corpus.filters, scratch, rebuild_train)]
    threshold = corpus.filters.near_duplicate_threshold
    with open_duplicates(segments, signatures, threshold, scratch, training) as duplicates:
        return choose(duplicates, sum(row_counts(segments)), corpus.max_streams)


def _write(
    segments: Sequence[Path],
    signatures: Sequence[Path],
    choice: Choice,
    folder: Path,
    drops: Drops,
    shard_bytes: int,
) -> Kept:
    import pyarrow.parquet as pq

    rows: dict[str, int | None] = {}
    licenses: Counter[str] = Counter()
    repositories = files = size = in_shard = 0
    # The files of a repository are neighbours, so counting the changes of name numbers the repositories.
    last, place, counted, number = "", -1, -1, -1
    writer: Any = None
    beside = pq.ParquetWriter(folder / SIGNATURES, signature_schema(), compression="zstd")
    try:
        for table, signed in _row_groups(segments, signatures):
            keep = []
            for repository, length, detected in zip(
                table.column("repo_name").to_pylist(),
                table.column("length_bytes").to_pylist(),
                table.column("detected_licenses").to_pylist(),
                strict=True,
            ):
                number += 1
                if repository != last:
                    last, place = repository, place + 1
                reason = choice.reasons.get(number)
                if reason is None and choice.repositories is not None and place not in choice.repositories:
                    reason = "beyond_max_streams"
                keep.append(reason is None)
                if reason is not None:
                    drops.add(reason, length)
                    continue
                repositories, counted = repositories + (place != counted), place
                files, size = files + 1, size + length
                licenses[detected[0] if detected else "none"] += 1
            kept = table.filter(keep).select(list(COLUMNS))
            if not len(kept):
                continue
            if writer is None or in_shard >= shard_bytes:
                if writer is not None:
                    writer.close()
                shard = f"shard-{len(rows):05d}.parquet"
                writer, in_shard = pq.ParquetWriter(folder / shard, shard_schema(), compression="zstd"), 0
                rows[shard] = 0
            writer.write_table(kept.cast(shard_schema()))
            beside.write_table(signed.filter(keep))
            in_shard += sum(kept.column("length_bytes").to_pylist())
            rows[shard] = (rows[shard] or 0) + len(kept)
    finally:
        beside.close()
        if writer is not None:
            writer.close()
    return Kept(rows, files, size, dict(sorted(licenses.items())), repositories)


def _row_groups(segments: Sequence[Path], signatures: Sequence[Path]) -> Iterator[tuple[Any, Any]]:
    """Yield row groups of files with their signatures, which have the same order."""
    import pyarrow.parquet as pq

    for segment, signed in zip(segments, signatures, strict=True):
        with pq.ParquetFile(segment) as reader:
            rows, start = pq.read_table(signed), 0
            for group in range(reader.num_row_groups):
                table = reader.read_row_group(group)
                yield table, rows.slice(start, len(table))
                start += len(table)
