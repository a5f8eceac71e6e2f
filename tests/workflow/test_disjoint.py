"""A package in two corpora that must be disjoint is an error before anything is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ponderttt.errors import ConfigError
from ponderttt.settings.experiment import Experiment, load
from ponderttt.settings.mapping import from_mapping
from ponderttt.workflow.plans.disjoint import check_disjoint
from study import CONFIG, ROOT

HEADER = "language,split,package,version,registry_kind,license,sha256,archive"


def experiment(folder: Path, packages: dict[str, list[str]], **grid: Any) -> Experiment:
    """A study of a list with these packages by split."""
    rows = [
        f"Python,{split},{name},1.0,wheel,MIT,{'a' * 64},{name}-1.0-py3-none-any.whl"
        for split, names in packages.items()
        for name in names
    ]
    path = folder / "packages.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    wheel = {"kind": "wheel", "language": "Python", "packages": str(path)}
    corpora = {split: {**wheel, "split": split, "chunks_per_stream": 4} for split in packages}
    mixed = {
        **{"kind": "mixed", "language": "Python", "split": "heldout", "parts": {"code": ["heldout"]}},
        **{"segment_chunks": 2, "chunks_per_stream": 4, "max_streams": 1},
    }
    settings = {"train_corpus": "train", "eval_corpora": ["heldout"], **grid}
    return from_mapping(
        Experiment,
        {**CONFIG, "corpora": {**corpora, "mixed": mixed}, "grid": {**CONFIG["grid"], **settings}},
    )


def test_disjoint_lists_pass(tmp_path: Path) -> None:
    lists = {"train": ["a"], "policies": ["b"], "heldout": ["c"]}
    check_disjoint(experiment(tmp_path, lists, policy_corpus="policies"))
    # Corpora that the grid does not read may overlap.
    check_disjoint(experiment(tmp_path, {**lists, "spare": ["a"]}, policy_corpus="policies"))


@pytest.mark.parametrize(
    ("lists", "grid", "message"),
    [
        (
            {"train": ["a", "tiny-pond"], "policies": ["Tiny.Pond"], "heldout": ["c"]},
            {"policy_corpus": "policies"},
            "the package tiny-pond is in both training corpora, train and policies",
        ),
        (
            {"train": ["a"], "heldout": ["b", "A"]},
            {},
            "the package a is in the training corpus train and in the held-out corpus heldout: take it out",
        ),
        (
            {"train": ["a"], "policies": ["b"], "heldout": ["b"]},
            {"policy_corpus": "policies"},
            "the package b is in the training corpus policies and in the held-out corpus heldout: take it out",
        ),
        (
            {"train": ["a"], "heldout": ["a"]},
            {"eval_corpora": ["mixed"]},
            "the package a is in the training corpus train and in the held-out corpus heldout, a part of mixed",
        ),
    ],
)
def test_a_shared_package_is_one_line_that_names_it_and_both_corpora(
    tmp_path: Path, lists: dict[str, list[str]], grid: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_disjoint(experiment(tmp_path, lists, **grid))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "study", ["config.yaml", "config/mixed.yaml", "config/long.yaml", "config/learned.yaml"]
)
def test_the_projects_studies_are_disjoint(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check_disjoint(load(study))
