"""The check that a held-out corpus reads no rows of a dataset that the training corpus reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ponderttt.settings.hub import DATASETS

if TYPE_CHECKING:
    from ponderttt.settings.corpus import CorpusConfig


def shared_rows(train: CorpusConfig, held_out: CorpusConfig) -> str | None:
    """Return the problem with two corpora that read the same rows, and its remedy; ``None`` if they share no rows.

    The hash of its repository decides where a row goes. A running text cannot be split so: it is one stream.
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
        "out: give the two ranges of hub.hash_from and hub.hash_to that do not overlap, or name another hub.dataset_split"
    )


def _place(path: str) -> Path:
    """The absolute path, with links resolved."""
    return Path(path).expanduser().resolve()


def _files(corpus: CorpusConfig) -> Path | None:
    """The file or folder that is read as a whole; ``None`` for a folder with a dataset card, which has splits."""
    if corpus.hub is None or corpus.hub.path is None:
        return None
    path = _place(corpus.hub.path)
    whole = path.is_file() or (path.is_dir() and not (path / "README.md").exists())
    return path if whole else None


def _overlap(first: Path | None, second: Path | None) -> bool:
    """Whether one of two places is in the other."""
    return (
        first is not None
        and second is not None
        and (first.is_relative_to(second) or second.is_relative_to(first))
    )


def rows_in_words(corpus: CorpusConfig) -> str:
    """The rows that a corpus reads: their place, and the configuration and split of the dataset, if it has any."""
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
