"""Stage ``merge``: the contents of all buckets become the shards of a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ponderttt.corpus.drops import Drops, drop_rows, format_drop_report
from ponderttt.corpus.hub.kinds import CONTENTS, SELECTED
from ponderttt.corpus.hub.merge import merge
from ponderttt.corpus.shard_files import shards_digest
from ponderttt.files.commands import rebuild
from ponderttt.files.folder import Folder
from ponderttt.files.manifest import MANIFEST, read_manifest
from ponderttt.settings.corpus import CorpusConfig, settings_of_files
from ponderttt.settings.mapping import as_mapping, settings
from ponderttt.workflow.jobs import Job


@settings
class Settings:
    """A corpus from a dataset: its name in the configuration, and the settings that its files depend on."""

    name: str
    corpus: CorpusConfig


@dataclass(frozen=True)
class Inputs:
    """Inputs of the corpus.

    Attributes:
        parts: selected files of all parts.
        buckets: contents of all buckets, in order.
        train: shards whose files must not be in this corpus; None for the training corpus itself.
    """

    parts: tuple[Folder, ...]
    buckets: tuple[Folder, ...]
    train: Folder | None


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``data/shards/{corpus}/`` and print what was dropped and why."""
    merge_buckets(settings.corpus, settings.name, inputs.parts, inputs.buckets, job.folder, inputs.train)


def merge_buckets(
    corpus: CorpusConfig,
    name: str,
    parts: Sequence[Path | str],
    buckets: Sequence[Path | str],
    output_dir: Path | str,
    train_shards: Path | str | None,
) -> None:
    """Write the shards of a corpus from a dataset, and print what was dropped and why.

    Args:
        corpus: its settings.
        name: its name in the configuration.
        parts: folders of :func:`ponderttt.workflow.stages.select.select`, at least one.
        buckets: folders of :func:`ponderttt.workflow.stages.contents.fetch`, in order.
        output_dir: folder of the shards.
        train_shards: shards whose files must not be in this corpus; None for the training corpus itself.
    """
    drops, segments, signatures = Drops(), list[Path](), list[Path]()
    failures: Counter[str] = Counter()
    dataset = ""
    for folder in map(Path, parts):
        facts = read_manifest(folder, SELECTED, rebuild(folder / MANIFEST), verify=False)["facts"]
        drops.add_facts(facts["drops"])
        dataset = facts["dataset"]
    for folder in map(Path, buckets):
        manifest = read_manifest(folder, CONTENTS, rebuild(folder / MANIFEST))
        drops.add_facts(manifest["facts"]["drops"])
        failures.update(failure["reason"] for failure in manifest["facts"]["failures"])
        segments += [folder / file for file in manifest["files"] if file.startswith("segment-")]
        signatures += [folder / file for file in manifest["files"] if file.startswith("signatures-")]
    again = "" if train_shards is None else rebuild(Path(train_shards) / MANIFEST)
    facts = merge(
        corpus,
        name,
        segments,
        signatures,
        output_dir,
        {
            "corpus": name,
            "config": settings_of_files(as_mapping(corpus)),
            "dataset": dataset,
            "failures": dict(sorted(failures.items())),
            "train_shards": None if train_shards is None else shards_digest(train_shards, again),
        },
        drops,
        train_shards,
        again,
    )
    print(format_drop_report(drop_rows(name, facts)))
