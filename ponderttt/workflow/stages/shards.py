"""Stage ``shards``: the files of a corpus that pass every filter."""

from __future__ import annotations

from pathlib import Path

from ponderttt.corpus.drops import drop_rows, format_drop_report
from ponderttt.corpus.shards import build_shards
from ponderttt.settings.corpus import CorpusConfig
from ponderttt.workflow.entry import Progress


def make_shards(
    config: CorpusConfig,
    name: str,
    downloads: Path | str,
    output_dir: Path | str,
    train_shards: Path | str | None,
    progress: Progress,
) -> None:
    """Write ``data/shards/{corpus}/`` and print what was dropped and why.

    Args:
        config: the corpus.
        name: what the configuration calls it.
        downloads: folder of archives.
        output_dir: folder of the shards.
        train_shards: shards whose files must not be in this corpus; ``None`` for the training corpus itself.
        progress: of the job.
    """
    facts = build_shards(config, name, downloads, output_dir, train_shards, progress)
    print(format_drop_report(drop_rows(name, facts)))
