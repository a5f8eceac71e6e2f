"""Whether a corpus that is held out reads rows of a dataset that the training corpus reads too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ponderttt.settings.hub import DATASETS

if TYPE_CHECKING:
    from ponderttt.settings.corpus import CorpusConfig


def shared_rows(train: CorpusConfig, held_out: CorpusConfig) -> str | None:
    """What is wrong with two corpora that read the same rows, and the remedy; ``None`` where they do not.

    Rows are split by the hash of their repository, and those of a running text by nothing: all of it is one stream.
    """
    if train.hub is None or held_out.hub is None:
        return None
    rows = rows_in_words(train)
    if rows != rows_in_words(held_out) and not _overlap(_files(train), _files(held_out)):
        return None
    if train.is_running_text or held_out.is_running_text:
        return (
            f"reads the same rows as the training corpus ({rows}), so nothing would be held out: name another "
            "hub.dataset_split, or another hub.path or hub.repository"
        )
    ranges = [(hub.hash_from, hub.hash_to) for hub in (train.hub, held_out.hub)]
    if max(low for low, _ in ranges) >= min(high for _, high in ranges):
        return None
    told = " and ".join(f"{low:g} to {high:g}" for low, high in ranges)
    return (
        f"reads the same rows as the training corpus ({rows}), with hashes from {told}, so its repositories would not be held "
        "out: give the two ranges of hub.hash_from and hub.hash_to that do not meet, or name another hub.dataset_split"
    )


def _place(path: str) -> Path:
    """Where a path leads, whatever links and detours it has."""
    return Path(path).expanduser().resolve()


def _files(corpus: CorpusConfig) -> Path | None:
    """The file, or the folder all of whose files are read: one without a card of a dataset, which would name its splits."""
    if corpus.hub is None or corpus.hub.path is None:
        return None
    path = _place(corpus.hub.path)
    whole = path.is_file() or (path.is_dir() and not (path / "README.md").exists())
    return path if whole else None


def _overlap(first: Path | None, second: Path | None) -> bool:
    """Whether one of two places lies in the other."""
    return (
        first is not None
        and second is not None
        and (first.is_relative_to(second) or second.is_relative_to(first))
    )


def rows_in_words(corpus: CorpusConfig) -> str:
    """Which rows a corpus reads: where they are, and the configuration and split of a dataset that has some."""
    hub = corpus.hub
    assert hub is not None
    if hub.path is not None:
        where = str(_place(hub.path))
        if _files(corpus) is not None:
            return where
    else:
        # The hub's names mean the same in any case.
        where = f"{(hub.repository or DATASETS[corpus.kind]).lower()}@{hub.revision}"
    return ", ".join(filter(None, [where, corpus.dataset_config, f"split {hub.dataset_split}"]))
