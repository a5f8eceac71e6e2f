"""Rows of a dataset, one part of it at a time: streamed from the hub at a pinned commit, or read from a local snapshot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ponderttt.config import CorpusConfig
from ponderttt.errors import PonderTTTError
from ponderttt.settings.hub import DATASETS

#: Rows that are in memory at once; a row of a repository can hold hundreds of files.
BATCH = 32
#: Where the terms of a gated dataset are accepted, and what else a bulk download of contents is bound by.
PAGE = "https://huggingface.co/datasets/{}"
AGREEMENT = (
    "The contents of The Stack v2 are served by Software Heritage; whoever downloads them in bulk needs an agreement with "
    "Software Heritage and INRIA (datasets@softwareheritage.org) and follows the principles for models of code "
    "(https://www.softwareheritage.org/2023/10/19/swh-statement-on-llm-for-code/). Every file keeps its own license."
)
_SUFFIXES = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".gz": "json", ".txt": "text"}


def dataset_name(corpus: CorpusConfig) -> str:
    """What the rows of a corpus come from, for messages and manifests."""
    assert corpus.hub is not None
    repository = corpus.hub.repository or DATASETS.get(corpus.kind)
    where = corpus.hub.path or f"{repository}@{(corpus.hub.revision or '')[:12]}"
    config = config_name(corpus)
    return f"{where} ({config})" if config else where


def config_name(corpus: CorpusConfig) -> str | None:
    """The configuration of the dataset that is read."""
    assert corpus.hub is not None
    if corpus.hub.config is not None:
        return corpus.hub.config or None
    return corpus.language if corpus.kind == "stack_v2" and corpus.hub.repository is None else None


def check_terms(corpus: CorpusConfig, name: str) -> None:
    """Raise PonderTTTError if a corpus may be read under terms only and the configuration does not accept them."""
    assert corpus.hub is not None
    if corpus.kind != "stack_v2" or corpus.hub.accept_terms:
        return
    repository = corpus.hub.repository or DATASETS[corpus.kind]
    raise PonderTTTError(
        f"corpus {name}: read the terms at {PAGE.format(repository)}. {AGREEMENT} If you accept all of that set "
        f"corpora.{name}.hub.accept_terms to true"
    )


def open_rows(corpus: CorpusConfig, part: int) -> Iterator[Any]:
    """Arrow tables of the rows of one part, in the order of the dataset.

    Args:
        corpus: of a kind that is a dataset.
        part: its number, below ``hub.parts``.

    Raises:
        PonderTTTError: no network, no such dataset, commit, configuration or split, no access, or fewer files than parts.
    """
    assert corpus.hub is not None
    hub = corpus.hub
    data = _dataset(corpus)
    if data.num_shards < hub.parts:
        raise PonderTTTError(
            f"{dataset_name(corpus)}: it has {data.num_shards} files, fewer than hub.parts {hub.parts}; set hub.parts to "
            f"{data.num_shards} or less"
        )
    if hub.parts > 1:
        data = data.shard(num_shards=hub.parts, index=part)
    left = hub.rows_per_part
    try:
        for table in data.with_format("arrow").iter(batch_size=BATCH):
            kept = table if left is None else table.slice(0, left)
            if len(kept):
                yield kept
            if left is not None:
                left -= len(kept)
                if left <= 0:
                    return
    except PonderTTTError:
        raise
    except Exception as error:
        raise _refusal(corpus, error) from error


def _dataset(corpus: CorpusConfig) -> Any:
    from datasets import load_dataset

    assert corpus.hub is not None
    hub = corpus.hub
    common: dict[str, Any] = {"split": hub.dataset_split, "streaming": True}
    try:
        if hub.path is not None:
            return _snapshot(corpus, Path(hub.path).expanduser(), common)
        repository = hub.repository or DATASETS[corpus.kind]
        return load_dataset(repository, config_name(corpus), revision=hub.revision, **common)
    except PonderTTTError:
        raise
    except Exception as error:
        raise _refusal(corpus, error) from error


def _snapshot(corpus: CorpusConfig, path: Path, common: dict[str, Any]) -> Any:
    from datasets import load_dataset

    if not path.exists():
        raise PonderTTTError(f"{path}: no such file or folder; check the key 'hub.path' of the corpus")
    if path.is_dir() and (path / "README.md").exists():
        return load_dataset(str(path), config_name(corpus), **common)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES)
    kinds = {_SUFFIXES[p.suffix] for p in files if p.suffix in _SUFFIXES}
    if len(kinds) != 1:
        raise PonderTTTError(
            f"{path}: holds {'files of several kinds' if kinds else 'no data files'}; known are Parquet, JSON and text, one "
            "kind in a folder"
        )
    more = {"keep_linebreaks": True} if kinds == {"text"} else {}
    return load_dataset(kinds.pop(), data_files={common["split"]: [str(p) for p in files]}, **common, **more)


def _refusal(corpus: CorpusConfig, error: Exception) -> PonderTTTError:
    """What the dataset's client found wrong, as one line with a remedy."""
    assert corpus.hub is not None
    name = dataset_name(corpus)
    repository = corpus.hub.repository or DATASETS.get(corpus.kind, "")
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    kinds = {type(link).__name__ for link in chain}
    said = " ".join(" ".join(str(link) for link in chain).split())
    if "Invalid credentials" in said:
        return PonderTTTError(
            f"{name}: the token in HF_TOKEN is not valid; make a new one at https://huggingface.co/settings/tokens"
        )
    if "GatedRepoError" in kinds or "gated dataset" in said:
        token = "the token in HF_TOKEN has no access" if os.environ.get("HF_TOKEN") else "there is no token"
        return PonderTTTError(
            f"{name}: gated, and {token}; accept its terms at {PAGE.format(repository)}, then set HF_TOKEN to a token of that "
            "account (https://huggingface.co/settings/tokens)"
        )
    if "RevisionNotFoundError" in kinds or ("revision" in said.lower() and "not found" in said.lower()):
        return PonderTTTError(f"{name}: the dataset has no commit {corpus.hub.revision}; check hub.revision")
    if "RepositoryNotFoundError" in kinds or "DatasetNotFoundError" in kinds:
        return PonderTTTError(
            f"{name}: no such dataset, or a private one; check hub.repository, or set HF_TOKEN to a token that may read it "
            "(https://huggingface.co/settings/tokens)"
        )
    if "BuilderConfig" in said:
        return PonderTTTError(
            f"{name}: the dataset has no configuration '{config_name(corpus)}'; check the corpus' language and hub.config"
            f" ({said[:200]})"
        )
    if "split" in said.lower() and "ValueError" in kinds:
        return PonderTTTError(
            f"{name}: the dataset has no split '{corpus.hub.dataset_split}'; check hub.dataset_split"
        )
    if kinds & {
        "ConnectError",
        "ConnectionError",
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "MaxRetryError",
    }:
        return PonderTTTError(
            f"{name}: the hub cannot be reached; check the network, or put a snapshot on this disk and name it in hub.path"
        )
    return PonderTTTError(
        f"{name}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
    )
