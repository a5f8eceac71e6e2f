"""Build corpora from datasets with the jobs of the workflow, one after the other."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from ponderttt.corpus.files import SourceFile
from ponderttt.corpus.shard_files import read_shards
from ponderttt.files.manifest import read_manifest
from ponderttt.settings.experiment import CorpusConfig
from ponderttt.settings.hub import ContentsConfig, HubConfig
from ponderttt.workflow.entry import Progress
from ponderttt.workflow.stages.contents import fetch
from ponderttt.workflow.stages.merge import merge_buckets
from ponderttt.workflow.stages.select import select

#: Short pauses, since these tests are not about waiting.
PATIENT = ContentsConfig(connections=8, attempts=8, longest_pause=0.05, timeout=5.0, segment_files=10)


def stack_corpus(snapshot: Path, endpoint: str | None = None, **changes: Any) -> CorpusConfig:
    """Return a ``stack_v2`` corpus of a snapshot; ``changes`` set keys of the corpus or of its ``hub``."""
    # Both have ``parts``; a dataset has those of its hub.
    only_corpus = CorpusConfig.__dataclass_fields__.keys() - {"parts"}
    own = {key: changes.pop(key) for key in list(changes) if key in only_corpus}
    hub = HubConfig(
        path=str(snapshot),
        accept_terms=True,
        contents=changes.pop("contents", replace(PATIENT, endpoint=endpoint)),
        **changes,
    )
    return CorpusConfig(**{"kind": "stack_v2", "language": "Python", "split": "train", "hub": hub, **own})


def build(
    corpus: CorpusConfig, folder: Path, name: str = "stack", train: Path | None = None, code: str = "code"
) -> Path:
    """Build a corpus and return the folder of its shards; ``code`` replaces the digest that contents depend on."""
    assert corpus.hub is not None
    parts = range(corpus.hub.parts)
    selected = [folder / "selected" / f"part-{part}" for part in parts]
    contents = [folder / "contents" / f"bucket-{part}" for part in parts]
    for part in parts:
        select(corpus, name, part, selected[part], quiet(folder))
    for bucket in parts:
        fetch(corpus, name, bucket, selected, contents[bucket], code, quiet(folder))
    merge_buckets(corpus, name, selected, contents, folder / "shards", train)
    return folder / "shards"


def quiet(folder: Path) -> Progress:
    """Return a job's progress that no test reads."""
    folder.mkdir(parents=True, exist_ok=True)
    return Progress(folder / "progress")


def files_of(shards: Path) -> list[SourceFile]:
    """Return the files of a corpus."""
    return read_shards(shards, "again")


def facts_of(shards: Path) -> dict[str, Any]:
    """Return the facts of its manifest."""
    facts: dict[str, Any] = read_manifest(shards, "shards", "again")["facts"]
    return facts


def bytes_of(shards: Path) -> dict[str, str]:
    """Return the sha256 of every Parquet file of a corpus."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(shards.glob("*.parquet"))
    }
