"""Commands in messages can be pasted: they are quoted, name all of the configuration, and find their program."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from ponderttt.files.commands import (
    OPTIONS_VARIABLE,
    again_with,
    program,
    rebuild,
    study_of,
    study_options,
    workflow_command,
)


@pytest.fixture(autouse=True)
def default_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """No study is at hand."""
    monkeypatch.delenv(OPTIONS_VARIABLE, raising=False)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of an environment in the working folder, none of which is on the path."""
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "snakemake", "ponderttt"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_program_is_named_as_the_shell_finds_it(
    environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert program("snakemake") == "'my env/bin/snakemake'"
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    assert program("snakemake") == f"'{environment}/snakemake'"
    monkeypatch.setenv("PATH", str(environment))
    assert program("snakemake") == "snakemake"
    (other := tmp_path / "other").mkdir()
    (other / "snakemake").symlink_to(environment / "snakemake")
    monkeypatch.setenv("PATH", f"{other}{os.pathsep}{environment}")
    assert program("snakemake") == f"'{environment}/snakemake'", (
        "another environment's comes first on the path"
    )
    assert program("elsewhere") == "elsewhere"


def test_an_environment_that_is_a_link_in_the_working_folder_is_named_through_it(
    environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".venv").symlink_to(environment.parent)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert program("snakemake") == ".venv/bin/snakemake"


def test_files_with_spaces_are_quoted() -> None:
    with study_of("my study.yaml"):
        command = rebuild("abs res (1)/records.parquet")
    assert shlex.split(command)[1:] == [
        "--force", "abs res (1)/records.parquet", "--configfile", "my study.yaml",
    ]  # fmt: skip
    assert command.endswith("--force 'abs res (1)/records.parquet' --configfile 'my study.yaml'")


def test_all_files_and_overrides_of_the_configuration_are_named(tmp_path: Path) -> None:
    here = Path.cwd()
    options = study_options(
        [here / "a.yaml", tmp_path / "b b.yaml"],
        {"data_dir": "my data", "grid": {"seeds": ["0", "1"]}, "cache": None},
    )
    assert shlex.split(options) == [
        "--configfile", "a.yaml", f"{tmp_path}/b b.yaml",
        "--config", "data_dir=my data", 'grid={"seeds": ["0", "1"]}', "cache=",
    ]  # fmt: skip


def test_snakemake_reads_overrides_as_they_were() -> None:
    from snakemake.cli import parse_config

    given = [
        "data_dir=my data",
        "chunk_size=64",
        "cache=",
        "grid={seeds: [0, 1]}",
        "xy={'y': 'z, w'}",
        "flag=True",
    ]
    overrides = parse_config(given)
    _, *words = shlex.split(study_options([], overrides))
    assert parse_config(words) == overrides


@pytest.mark.parametrize("files", [[], ["config.yaml"], [Path.cwd() / "config.yaml"]])
def test_the_default_configuration_is_not_named(files: list[Path | str]) -> None:
    assert study_options(files) == ""


def test_targets_come_before_options_that_take_many_words() -> None:
    command = workflow_command("table.csv", options="--configfile a.yaml")
    assert shlex.split(command)[1:] == ["table.csv", "--configfile", "a.yaml"]


def test_a_study_is_at_hand_inside_its_block_only() -> None:
    with study_of("outer.yaml"):
        with study_of("inner.yaml"):
            assert workflow_command().endswith("--configfile inner.yaml")
        assert workflow_command().endswith("--configfile outer.yaml")
    assert "--configfile" not in workflow_command()


def test_the_same_command_with_another_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/ponderttt", "score", "my code", "--policy", "entropy"])
    words = shlex.split(again_with("config/smoke.yaml"))
    assert words[1:] == ["score", "my code", "--policy", "entropy", "--config", "config/smoke.yaml"]
