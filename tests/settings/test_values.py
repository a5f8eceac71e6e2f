"""Paths, names of folders and lists without repeats: each key of a kind behaves alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ponderttt.errors import ConfigError
from ponderttt.settings.corpus import CorpusConfig, FilterConfig
from ponderttt.settings.experiment import load
from ponderttt.settings.hub import HubConfig
from ponderttt.settings.learning import Learning
from ponderttt.settings.mapping import from_mapping
from ponderttt.settings.model import ModelSource

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "config.yaml"
CORPUS = {"kind": "wheel", "language": "Python", "split": "train", "packages": "packages.csv"}
#: Type, a mapping that it takes, and each of its keys that is a path.
PATHS: list[tuple[type, dict[str, Any], str]] = [
    (ModelSource, {"kind": "path"}, "path"),
    (CorpusConfig, {**CORPUS, "kind": "files", "license": "MIT"}, "path"),
    (CorpusConfig, CORPUS, "packages"),
    (HubConfig, {}, "path"),
    (HubConfig, {"path": "x"}, "opt_out"),
]


def study(**overrides: Any) -> Any:
    """The default study with other settings."""
    return load(STUDY, overrides=overrides)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(("kind", "mapping", "key"), PATHS)
def test_each_key_that_is_a_path_expands_the_home_folder_and_is_not_empty(
    kind: type, mapping: dict[str, Any], key: str
) -> None:
    assert getattr(from_mapping(kind, {**mapping, key: "~/x"}), key) == "/home/me/x"
    # All else is kept as it is written.
    assert getattr(from_mapping(kind, {**mapping, key: "./a//{b}~"}), key) == "./a//{b}~"
    for wrong, says in (
        ("", f"{key} must name a file or a folder, got ''"),
        (" ", f"{key} must name a file or a folder, got ' '"),
        ("a\nb", f"{key} must have no control characters"),
        ("~no.such.user/x", f"{key} begins with the home folder of an unknown user"),
    ):
        with pytest.raises(ConfigError) as caught:
            from_mapping(kind, {**mapping, key: wrong})
        assert str(caught.value).startswith(says)
        assert "\n" not in str(caught.value)


def test_files_of_a_list_are_paths_too() -> None:
    hub = from_mapping(HubConfig, {"path": "x", "decontaminate": ["~/a", "b"]})
    assert hub.decontaminate == ("/home/me/a", "b")
    with pytest.raises(ConfigError, match=r"^decontaminate\[1\] must name a file"):
        from_mapping(HubConfig, {"path": "x", "decontaminate": ["a", ""]})


@pytest.mark.parametrize("key", ["data_dir", "results_dir"])
def test_the_folders_of_the_workflow_have_no_braces(key: str) -> None:
    assert getattr(study(**{key: "~/res"}), key) == "/home/me/res"
    for wrong, says in (
        ("", "must name a file or a folder"),
        ("res{x}", "must have no braces"),
        ("}", "must have no braces"),
    ):
        with pytest.raises(ConfigError, match=f"^{key} {says}"):
            study(**{key: wrong})


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "{a}", "a b", ".hidden", "-x"])
@pytest.mark.parametrize("section", ["models", "corpora"])
def test_a_name_that_is_no_folder_is_refused(section: str, name: str) -> None:
    known = {"models": {"family": "llama", "source": {"kind": "path", "path": "x"}}, "corpora": CORPUS}
    with pytest.raises(ConfigError, match="is not usable as the name of a folder"):
        study(**{section: {name: known[section]}})


@pytest.mark.parametrize(
    ("kind", "mapping", "key", "values"),
    [
        (CorpusConfig, CORPUS, "only", ["click", "click"]),
        (FilterConfig, {}, "licenses", ["MIT", "MIT"]),
        (HubConfig, {"path": "x"}, "license_types", ["permissive", "permissive"]),
        (Learning, {}, "leave_out", ["code", "code"]),
    ],
)
def test_a_list_of_names_has_no_repeats(
    kind: type, mapping: dict[str, Any], key: str, values: list[str]
) -> None:
    assert getattr(from_mapping(kind, {**mapping, key: values[:1]}), key) == tuple(values[:1])
    with pytest.raises(ConfigError, match=f"^{key} names one twice"):
        from_mapping(kind, {**mapping, key: values})
