"""Read the rows of one part of a dataset: streamed from the hub at a pinned commit, or from a local snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from ponderttt.corpus.folders import all_files, is_file
from ponderttt.corpus.hub.candidates import placed, text_columns
from ponderttt.corpus.hub.tables import SUFFIXES, tables_of
from ponderttt.errors import PonderTTTError
from ponderttt.settings.corpus import CorpusConfig
from ponderttt.settings.hub import DATASETS

#: The page to accept the terms of a gated dataset, and the agreement that a bulk download of contents needs.
PAGE = "https://huggingface.co/datasets/{}"
AGREEMENT = (
    "Software Heritage serves the contents of The Stack v2; a bulk download needs an agreement with Software Heritage and "
    "INRIA (datasets@softwareheritage.org) and must follow the principles for models of code "
    "(https://www.softwareheritage.org/2023/10/19/swh-statement-on-llm-for-code/). Every file keeps its own license."
)


def dataset_name(corpus: CorpusConfig) -> str:
    """Return the name of a corpus' dataset, for messages and manifests."""
    assert corpus.hub is not None
    repository = corpus.hub.repository or DATASETS.get(corpus.kind)
    where = corpus.hub.path or f"{repository}@{(corpus.hub.revision or '')[:12]}"
    config = corpus.dataset_config
    return f"{where} ({config})" if config else where


def check_terms(corpus: CorpusConfig, name: str) -> None:
    """Raise PonderTTTError if a corpus has terms of use that the configuration does not accept."""
    assert corpus.hub is not None
    if corpus.kind != "stack_v2" or corpus.hub.accept_terms:
        return
    repository = corpus.hub.repository or DATASETS[corpus.kind]
    raise PonderTTTError(
        f"corpus {name}: read the terms at {PAGE.format(repository)}. {AGREEMENT} If you accept them, set "
        f"corpora.{name}.hub.accept_terms to true"
    )


def open_rows(corpus: CorpusConfig, part: int) -> Iterator[Any]:
    """Yield Arrow tables of a few rows of one part, file by file, with checked columns; metadata state their place.

    Files of The Stack come in the order of a stable hash of their names, since some datasets are sorted by repository;
    with ``hub.rows_per_part`` each file of a part gives a share.  Files of kind ``text`` keep their order.

    Args:
        corpus: settings of a corpus that comes from a dataset.
        part: number of the part, below ``hub.parts``.

    Raises:
        PonderTTTError: no network, no such dataset, commit, configuration or split, no access, fewer files than parts, a
            damaged file, or a column that is missing or of another type.
    """
    assert corpus.hub is not None
    try:
        files = _files_of_part(corpus, part)
    except PonderTTTError:
        raise
    except Exception as error:
        raise _refusal(corpus, error) from error
    left = corpus.hub.rows_per_part
    for number, file in enumerate(files):
        share = left
        if left is not None and corpus.kind != "text":
            share = -(-left // (len(files) - number))
        for table in _rows_of(corpus, file, share):
            yield table
            if left is not None:
                left -= len(table)
        if left == 0:
            return


def _rows_of(corpus: CorpusConfig, file: str, most: int | None) -> Iterator[Any]:
    """Yield tables of the first rows of one file."""
    short = file.rpartition("/")[2]
    name, given = f"{dataset_name(corpus)}: {short}", 0
    try:
        for table in tables_of(file, corpus.kind, text_columns(corpus), name):
            kept = table if most is None else table.slice(0, most - given)
            if len(kept):
                yield placed(kept, name, given)
            given += len(kept)
            if given == most:
                return
    except PonderTTTError:
        raise
    except Exception as error:
        raise _refusal(corpus, error, f"{short}, after row {given}") from error


def _files_of_part(corpus: CorpusConfig, part: int) -> list[str]:
    hub = corpus.hub
    assert hub is not None
    files = _data_files(corpus)
    if len(files) < hub.parts:
        raise PonderTTTError(
            f"{dataset_name(corpus)}: has {len(files)} files, fewer than hub.parts {hub.parts}; set hub.parts to "
            f"{len(files)} or less"
        )
    if corpus.kind == "text":
        # The files of a part are neighbours, since a text may continue from one to the next.
        first, last = (len(files) * index // hub.parts for index in (part, part + 1))
        return files[first:last]
    return in_stable_order(files)[part :: hub.parts]


def in_stable_order(files: Iterable[str]) -> list[str]:
    """Sort files by the sha256 of their names: an order independent of their contents and the same everywhere."""
    return sorted(files, key=lambda file: (sha256(file.rpartition("/")[2].encode()).digest(), file))


def _data_files(corpus: CorpusConfig) -> list[str]:
    """Return the files of the configuration and split: addresses on the hub at the pinned commit, or local paths."""
    from datasets import load_dataset_builder

    hub = corpus.hub
    assert hub is not None
    where, revision = hub.repository or DATASETS.get(corpus.kind, ""), hub.revision
    if hub.path is not None:
        path = Path(hub.path).expanduser()
        try:
            single = is_file(path)
        except PonderTTTError as error:
            raise PonderTTTError(f"{error}; check the key 'hub.path' of the corpus") from None
        if single or not (path / "README.md").exists():
            return _files_under(path)
        where, revision = str(path), None
    builder = load_dataset_builder(where, corpus.dataset_config, revision=revision)
    splits = builder.config.data_files or {}
    if hub.dataset_split not in splits:
        raise PonderTTTError(
            f"{dataset_name(corpus)}: the dataset has no split '{hub.dataset_split}', only {', '.join(map(str, splits))}; "
            "check hub.dataset_split"
        )
    return [str(file) for file in splits[hub.dataset_split]]


def _files_under(path: Path) -> list[str]:
    files = [path] if path.is_file() else [p for p in all_files(path) if p.suffix in SUFFIXES]
    kinds = {SUFFIXES[p.suffix] for p in files if p.suffix in SUFFIXES}
    if len(kinds) != 1:
        raise PonderTTTError(
            f"{path}: holds {'files of several kinds' if kinds else 'no data files'}; known are Parquet, JSON and text, one "
            "kind in a folder"
        )
    return [str(file) for file in files]


def _refusal(corpus: CorpusConfig, error: Exception, place: str | None = None) -> PonderTTTError:
    """Return the error about a dataset, or one of its files, as one line with a remedy."""
    from huggingface_hub import get_token

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
        token = "your token has no access" if get_token() else "there is no token"
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
            f"{name}: the dataset has no configuration '{corpus.dataset_config}'; check the corpus' language and hub.config"
            f" ({said[:200]})"
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
    what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if place is None:
        return PonderTTTError(f"{name}: cannot be read ({what})")
    return PonderTTTError(
        f"{name}: {place}: cannot be read ({what}); check the file; if it is on this disk, fetch it again"
    )
