"""A held-out corpus loses copies of training files, found with the training corpus' signatures or with new ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest

from ponderttt.corpus.dedup import NearDuplicates
from ponderttt.corpus.hub.selection import stable_hash
from ponderttt.corpus.hub.signatures import signature_row
from ponderttt.corpus.hub.training import SIGNATURES
from ponderttt.corpus.shard_files import write_shards
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.settings.experiment import CorpusConfig
from stack_builds import build, facts_of, files_of, stack_corpus
from stack_data import Planted, write_stack_v3


class Split(NamedTuple):
    """A finished training corpus, and a held-out corpus with copies of its files."""

    train: Path
    held_out: CorpusConfig


@pytest.fixture(scope="module")
def split(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("split")
    snapshot = write_stack_v3(folder / "v3", planted.files, parts=2)
    # A hash between the repositories of a file and of its copy, for each kind of copy.
    types = ("permissive", "no_license", "non_permissive")
    pairs = [sorted(stable_hash(f.repo_name) for f in pair) for pair in (*planted.exact, *planted.near)]
    cut = max(
        (low + 1e-9 for low, _ in pairs),
        key=lambda at: min(
            sum(low < at <= high for low, high in pairs[: len(planted.exact)]),
            sum(low < at <= high for low, high in pairs[len(planted.exact) :]),
        ),
    )
    corpora = [
        stack_corpus(snapshot, kind="stack_v3", parts=2, license_types=types, **ends)
        for ends in ({"hash_to": cut}, {"hash_from": cut, "split": "heldout"})
    ]
    return Split(build(corpora[0], folder / "train", "train"), corpora[1])


def copies(shards: Path) -> dict[str, int]:
    """Files that were dropped as copies of training files, by reason."""
    drops = facts_of(shards)["drops"]
    return {reason: count["files"] for reason, count in drops.items() if reason.endswith("_of_training")}


def test_signatures_of_exactly_the_kept_files_lie_beside_the_shards(split: Split) -> None:
    near = NearDuplicates(0.7, 250)
    wanted = [signature_row(near, file.blob_id, file.content) for file in files_of(split.train)]
    assert wanted
    assert pq.read_table(split.train / SIGNATURES).to_pylist() == wanted


def test_signatures_that_lie_there_and_computed_ones_find_the_same_copies(
    split: Split, tmp_path: Path
) -> None:
    beside = build(split.held_out, tmp_path / "beside", "heldout", split.train)
    # Like a training corpus of another kind: without signatures.
    write_shards(files_of(split.train), tmp_path / "other", {})
    computed = build(split.held_out, tmp_path / "computed", "heldout", tmp_path / "other")
    assert set(copies(beside)) == {"exact_copy_of_training", "near_copy_of_training"}
    assert copies(beside) == copies(computed)
    assert files_of(beside) == files_of(computed)


def test_signatures_of_another_length_are_not_compared_but_made_anew(split: Split, tmp_path: Path) -> None:
    filters = replace(split.held_out.filters, near_duplicate_permutations=200)
    shards = build(replace(split.held_out, filters=filters), tmp_path, "heldout", split.train)
    assert set(copies(shards)) == {"exact_copy_of_training", "near_copy_of_training"}


def test_damaged_signatures_are_told_and_not_used(split: Split, tmp_path: Path) -> None:
    path = split.train / SIGNATURES
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    try:
        with pytest.raises(CorruptFileError, match=r"signatures.parquet: its sha256 differs.*Rebuild it"):
            build(split.held_out, tmp_path, "heldout", split.train)
    finally:
        path.write_bytes(whole)


def test_a_held_out_language_of_which_there_is_nothing_is_one_line(split: Split, tmp_path: Path) -> None:
    corpus = replace(split.held_out, language="COBOL")
    with pytest.raises(PonderTTTError, match=r"^corpus heldout: no file is left after the filters \(other_"):
        build(corpus, tmp_path, "heldout", split.train)
    assert not (tmp_path / "shards").exists()
