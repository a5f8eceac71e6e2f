"""A study file states what differs from the file that it extends; the package and the workflow agree on the result."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ponderttt.errors import ConfigError
from ponderttt.files.commands import study_options
from ponderttt.settings.experiment import load
from ponderttt.settings.layers import merged, read_layers, read_overrides

ROOT = Path(__file__).resolve().parents[2]
Write = Callable[[str, dict[str, Any]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a study file; returns its path."""

    def file(name: str, content: dict[str, Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return file


def test_mappings_merge_and_all_else_replaces() -> None:
    below = {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}, "f": 1}
    above = {"a": {"c": [3]}, "d": None, "f": {"g": 2}, "h": 4}
    assert merged(below, above) == {"a": {"b": 1, "c": [3]}, "d": None, "f": {"g": 2}, "h": 4}
    assert below == {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}, "f": 1}


def test_a_chain_is_read_from_its_first_base_and_paths_are_relative_to_their_file(write: Write) -> None:
    write("base.yaml", {"a": 1, "b": 1, "c": 1})
    write("one/middle.yaml", {"extends": "../base.yaml", "b": 2, "c": 2})
    top = write("two/top.yaml", {"extends": "../one/middle.yaml", "c": 3})
    assert read_layers([top]) == {"a": 1, "b": 2, "c": 3}
    alone = write("alone.yaml", {"c": 4})
    assert read_layers([alone]) == {"c": 4}


def test_later_files_are_on_top_and_a_common_base_counts_once(write: Write) -> None:
    base = write("base.yaml", {"a": 1, "b": 1})
    first = write("first.yaml", {"extends": "base.yaml", "a": 2})
    second = write("second.yaml", {"extends": "base.yaml", "b": 3})
    assert read_layers([first, second]) == {"a": 2, "b": 3}
    # A file that is named itself is on top, though it is a base too.
    assert read_layers([first, base]) == {"a": 1, "b": 1}


def test_a_circle_and_a_bad_base_are_one_line(write: Write) -> None:
    first = write("first.yaml", {"extends": "second.yaml"})
    write("second.yaml", {"extends": "first.yaml"})
    own = write("own.yaml", {"extends": "own.yaml"})
    lost = write("lost.yaml", {"extends": "none.yaml"})
    number = write("number.yaml", {"extends": 3})
    for path, says in (
        (first, "extends goes in a circle"),
        (own, "extends goes in a circle"),
        (lost, "none.yaml, which lost.yaml extends: no such configuration file"),
        (number, "extends must be the path of a study file, got 3"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert says in str(caught.value).replace(f"{path.parent}/", "")
        assert "\n" not in str(caught.value)


def test_the_workflow_and_the_package_read_the_same_experiment(write: Write, tmp_path: Path) -> None:
    """Its jobs too: the one that writes the effective configuration is a process of its own."""
    write("base.yaml", {"extends": str(ROOT / "config.yaml"), "results_dir": "out", "grid": {"budget": 4.5}})
    only = {"grid": {"methods": ["skip", "random"]}, "statistics": {"confirmatory": []}}
    study = write("studies/one.yaml", {"extends": "../base.yaml", **only})
    more = write("more.yaml", {"training": {"epochs": 7}, "grid": {"more_budgets": [2.0]}})
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--snakefile", str(ROOT / "Snakefile")]
    given = ["--configfile", str(study), str(more), "--config", "chunk_size=64", "grid={seeds: [5]}"]
    ran = subprocess.run(
        [*command, *given, "--", "out/config.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    found = load(tmp_path / "out/config.yaml")
    assert found == load(study, more, overrides={"chunk_size": 64, "grid": {"seeds": [5]}})
    assert (found.chunk_size, found.training.epochs, found.grid.seeds, found.grid.budget) == (
        64,
        7,
        (5,),
        4.5,
    )
    assert found.grid.all_methods == load(study, more).grid.all_methods
    assert found.corpora == load(ROOT / "config.yaml").corpora


def test_merged_anchors_repeat_no_key(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, y: 3}\n", encoding="utf-8")
    assert read_layers([path]) == {"a": {"x": 1, "y": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}}


def test_values_inside_lists_and_mappings_of_the_command_line_keep_their_types() -> None:
    """Also when the command is pasted out of a message."""
    from snakemake.cli import parse_config

    def read(entries: list[str]) -> dict[str, Any]:
        return read_overrides(entries, parse_config(entries))

    entries = ["chunk_size=64", "cache=on", "data_dir=x y", "grid={seeds: [5], budget: 2.5}"]
    found = read(entries)
    assert found == {
        "chunk_size": 64,
        "cache": "on",
        "data_dir": "x y",
        "grid": {"seeds": [5], "budget": 2.5},
    }
    assert read(shlex.split(study_options([], found))[1:]) == found
