"""Corpora have what their kind needs, and what is held out is never trained on."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ponderttt.settings.experiment import Experiment
from ponderttt.settings.mapping import from_mapping
from small_experiment import SMALL, changed, refusal


def test_a_training_corpus_is_never_evaluated():
    assert "nothing would be held out" in refusal(changed("grid.eval_corpora", ["theirs", "ours"]))


def of_datasets(train: dict[str, Any], held_out: dict[str, Any], **both: Any) -> dict[str, Any]:
    """SMALL with two corpora of datasets that have these settings in ``hub``."""
    mapping = copy.deepcopy(SMALL)
    shared = {"kind": "stack_v3", "language": "Python", **both}
    mapping["corpora"] = {
        "ours": {**shared, "split": "train", "hub": train},
        "theirs": {**shared, "split": "heldout", "hub": held_out},
    }
    return mapping


COMMIT = {"revision": "0" * 40}


def test_repositories_of_a_dataset_are_held_out_by_ranges_that_do_not_meet():
    low, high = {**COMMIT, "hash_to": 0.5}, {**COMMIT, "hash_from": 0.5}
    from_mapping(Experiment, of_datasets(low, high))
    message = refusal(of_datasets(low, {**high, "hash_from": 0.4}))
    assert message.startswith("corpora.theirs reads the same rows as the training corpus")
    assert "hashes from 0 to 0.5 and 0.4 to 1" in message and "ranges of hub.hash_from" in message
    # The dataset that a kind has by default is the same by its name, in any case.
    named = {**COMMIT, "repository": "huggingfacecode/stack-v3-train"}
    assert "reads the same rows" in refusal(of_datasets(COMMIT, named))
    for other in (
        {"dataset_split": "test"},
        {"config": "other"},
        {"revision": "1" * 40},
        {"repository": "a/b"},
    ):
        from_mapping(Experiment, of_datasets(COMMIT, {**COMMIT, **other}))


def test_a_running_text_is_held_out_by_its_split_and_by_no_hash(tmp_path):
    hub = {**COMMIT, "repository": "a/text", "hash_to": 0.5}
    rest = {**hub, "hash_from": 0.5, "hash_to": 1.0}
    message = refusal(of_datasets(hub, rest, kind="text"))
    assert "nothing would be held out: name another hub.dataset_split" in message
    from_mapping(Experiment, of_datasets(hub, {**rest, "dataset_split": "test"}, kind="text"))
    # A folder without a card of a dataset has no splits: all of its files are read.
    (tmp_path / "rows.txt").write_text("one line\n")
    folder = {"path": str(tmp_path)}
    assert "reads the same rows" in refusal(
        of_datasets(folder, {**folder, "dataset_split": "test"}, kind="text")
    )
    # So are those of a folder in which the other text lies, wherever a link to it is.
    (tmp_path.parent / "link").symlink_to(tmp_path / "rows.txt")
    for inside in (tmp_path / "rows.txt", tmp_path.parent / "link"):
        for pair in ((folder, {"path": str(inside)}), ({"path": str(inside)}, folder)):
            assert "reads the same rows" in refusal(of_datasets(*pair, kind="text"))
    (tmp_path / "README.md").write_text("---\n---\n")
    from_mapping(Experiment, of_datasets(folder, {**folder, "dataset_split": "test"}, kind="text"))


def test_a_corpus_says_which_key_its_kind_needs():
    corpus = {"language": "Python", "split": "train"}
    for kind, key in (("files", "path"), ("npm", "packages"), ("repeated", "source"), ("stack_v3", "hub")):
        message = refusal(changed("corpora.ours", {**corpus, "kind": kind}))
        assert message.startswith(f"corpora.ours.{key} is missing: a corpus of kind {kind} needs it")


MIXED = {
    **{"kind": "mixed", "language": "Python", "split": "heldout", "segment_chunks": 2},
    **{"parts": {"code": ["theirs"]}, "max_streams": 3, "chunks_per_stream": 8},
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"parts": {}}, "corpora.mixed.parts is missing: a corpus of kind mixed needs it"),
        (
            {"segment_chunks": None},
            "corpora.mixed.segment_chunks is missing: a corpus of kind mixed needs it",
        ),
        ({"max_streams": None}, "corpora.mixed.max_streams is missing: a corpus of kind mixed needs it"),
        ({"parts": {"code": []}}, "corpora.mixed.parts.code names no corpus"),
        ({"parts": {"code": ["their"]}}, "corpora.mixed.parts.code: unknown 'their'; did you mean 'theirs'?"),
        ({"parts": {"code": ["mixed"]}}, "corpora.mixed.parts.code names mixed, of kind mixed; a part is a"),
        (
            {"parts": {"code": ["ours"]}},
            "corpora.mixed has ours, which is grid.train_corpus, as a part: nothing would be held out",
        ),
        (
            {"chunks_per_stream": 7},
            "corpora.mixed.chunks_per_stream must be a multiple of segment_chunks, 2, got 7",
        ),
        ({"content": "data"}, "corpora.mixed.content is only for packages and files"),
        ({"kind": "files", "path": "a", "license": "MIT"}, "corpora.mixed.parts is only for the kind mixed"),
    ],
)
def test_a_mixed_corpus_without_its_parts_or_with_training_streams_is_refused(changes, says):
    mapping = changed("corpora.mixed", MIXED)
    mapping["grid"]["eval_corpora"] = ["theirs", "mixed"]
    from_mapping(Experiment, mapping)
    mapping["corpora"]["mixed"] = {**MIXED, **changes}
    assert says in refusal(mapping)


def test_streams_shorter_than_a_segment_are_refused_as_a_part():
    mapping = changed("corpora.mixed", MIXED)
    mapping["corpora"]["theirs"]["chunks_per_stream"] = 1
    assert refusal(mapping) == (
        "corpora.mixed.parts.code names theirs, whose streams have at most 1 chunks; a segment has 2: raise "
        "corpora.theirs.chunks_per_stream or lower corpora.mixed.segment_chunks"
    )


def test_a_corpus_of_policies_is_another_than_those_of_adapters_and_of_evaluation():
    mapping = changed("grid.policy_corpus", "ours")
    assert refusal(mapping).startswith(
        "grid.policy_corpus ours is also grid.train_corpus: name another corpus"
    )
    assert "grid.policy_corpus theirs is also in grid.eval_corpora" in refusal(
        changed("grid.policy_corpus", "theirs")
    )
    assert "grid.policy_corpus: unknown 'our'" in refusal(changed("grid.policy_corpus", "our"))
    mapping = of_datasets({**COMMIT, "hash_to": 0.5}, {**COMMIT, "hash_from": 0.5})
    mapping["corpora"]["more"] = SMALL["corpora"]["theirs"]
    mapping["grid"] = {**mapping["grid"], "policy_corpus": "more"}
    assert "is for corpora of packages and files, but ours is of kind stack_v3" in refusal(mapping)
    from_mapping(Experiment, changed("grid.policy_corpus", None))
