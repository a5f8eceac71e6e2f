"""The project's list of pinned packages is right, and errors in a list are named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ponderttt.corpus.filters import license_allowed
from ponderttt.corpus.packages import read_packages, select_packages
from ponderttt.errors import ConfigError
from ponderttt.settings.corpus import CorpusConfig, FilterConfig

LIST = Path(__file__).parents[2] / "resources" / "packages.csv"
HEADER = "language,split,package,version,registry_kind,license,sha256,archive"
ROW = f"Python,train,click,8.1.7,wheel,BSD-3-Clause,{'a' * 64},click-8.1.7-py3-none-any.whl"


def write_list(folder: Path, *rows: str, header: str = HEADER) -> str:
    path = folder / "packages.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def corpus(packages: str, **changes: object) -> CorpusConfig:
    settings = {"kind": "wheel", "language": "Python", "split": "train", "packages": packages, **changes}
    return CorpusConfig(**settings)  # type: ignore[arg-type]


def test_every_license_of_the_projects_list_is_spdx_and_allowed() -> None:
    allowed = FilterConfig().licenses
    assert [p.package for p in read_packages(LIST) if not license_allowed(p.license, allowed)] == []


def test_no_repository_of_the_projects_list_is_in_two_splits_or_pinned_twice() -> None:
    packages = read_packages(LIST)
    names = [(p.language, p.package.lower()) for p in packages]
    assert len(names) == len(set(names))
    assert len({p.sha256 for p in packages}) == len(packages)


def test_the_projects_list_has_enough_of_every_corpus_and_names_no_address() -> None:
    counts = Counter((p.language, p.split) for p in read_packages(LIST))
    assert counts[("Python", "heldout")] >= 40
    assert counts[("Python", "train")] >= 50
    assert counts[("Python", "policy-train")] >= 50
    assert all(counts[(language, "ood")] >= 20 for language in ("JavaScript", "Go", "Java"))
    assert "://" not in LIST.read_text()


def test_every_wheel_of_the_projects_list_is_one_that_pip_picks_on_any_python_3() -> None:
    wheels = [p for p in read_packages(LIST) if p.registry_kind == "wheel"]
    tags = {p.package: p.archive.removesuffix(".whl").split("-")[-3:-1] for p in wheels}
    bound = [name for name, (python, abi) in tags.items() if abi != "abi3" and "py3" not in python.split(".")]
    assert bound == []


def test_a_corpus_is_the_matching_rows_in_the_order_of_the_list(tmp_path: Path) -> None:
    rows = [ROW.replace("click", name) for name in ("zeta", "alpha", "midway")]
    packages = write_list(tmp_path, *rows, ROW.replace("train", "heldout"))
    assert [p.package for p in select_packages(corpus(packages))] == ["zeta", "alpha", "midway"]
    assert [p.package for p in select_packages(corpus(packages, max_streams=2))] == ["zeta", "alpha"]
    assert [p.package for p in select_packages(corpus(packages, only=("midway", "alpha")))] == [
        "alpha",
        "midway",
    ]


def test_an_unknown_package_is_an_error_that_names_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no wheel package 'clck' .*did you mean 'click'\?"):
        select_packages(corpus(write_list(tmp_path, ROW), only=("clck",)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW.replace("a" * 64, "abc"), "line 2: sha256 is not valid: 'abc'"),
        (ROW.replace("wheel", "conda"), "registry_kind must be one of wheel, npm, debian, got 'conda'"),
        (ROW.replace(",click,", ",--pre,"), "package is not valid: '--pre'"),
        (ROW.replace("click-8.1.7-py3", "../click-8.1.7-py3"), "archive is not valid: '../click"),
        (ROW.replace("BSD-3-Clause", ""), "license is empty"),
    ],
)
def test_a_bad_line_is_an_error_that_names_the_line(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_packages(write_list(tmp_path, row))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_without_a_column_or_without_matches_is_an_error(tmp_path: Path) -> None:
    short = write_list(tmp_path, header=HEADER.replace(",sha256", ""))
    with pytest.raises(ConfigError, match="the column 'sha256' is missing"):
        read_packages(short)
    with pytest.raises(ConfigError, match="no such list of packages"):
        read_packages(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match="no package of kind wheel for language Go, split train"):
        select_packages(corpus(write_list(tmp_path, ROW), language="Go"))
    with pytest.raises(ConfigError, match="click is listed twice"):
        select_packages(corpus(write_list(tmp_path, ROW, ROW)))
