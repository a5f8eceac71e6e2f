"""``ponderttt status`` says what is missing, why, and which command makes it."""

import shlex
import shutil
from pathlib import Path

import pytest

from ponderttt.cli.status import report
from ponderttt.files.commands import program
from study import Study

RUNS = Path("results/runs/test/tiny")


@pytest.fixture
def inside(copied_study: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(copied_study.folder)
    return copied_study


def test_a_finished_study_names_its_table(inside: Study) -> None:
    assert report("config.yaml").splitlines() == [
        "results: 11 of 11 runs are finished",
        "",
        "The table: results/paper_table.csv",
    ]


def test_what_was_never_run_is_listed(inside: Study) -> None:
    inside.configure(results_dir="elsewhere")
    lines = report("config.yaml").splitlines()
    assert lines[0] == "elsewhere: 0 of 11 runs are finished"
    assert "  missing   test tiny lora/update_1 seed 1" in lines
    assert lines[-1] == f"Run the rest: {program('snakemake')}"


def test_another_configuration_is_in_the_command(inside: Study) -> None:
    inside.configure("other.yaml", results_dir="elsewhere")
    assert report("other.yaml").endswith("snakemake --configfile other.yaml")


@pytest.mark.parametrize("stage", ["train/tiny/lora", "calibrate/tiny/lora", "policy/tiny/lora/regression"])
def test_what_failed_before_an_arm_is_why_the_arm_failed(inside: Study, stage: str) -> None:
    shutil.rmtree(RUNS / "lora/entropy/seed-1")
    log = Path(f"results/logs/{stage}/seed-1.log")
    log.write_text("ponderttt: something broke\n")
    assert "  failed    test tiny lora/entropy seed 1: something broke" in report("config.yaml").splitlines()


@pytest.mark.slow
def test_deleted_damaged_and_failed_runs_are_made_by_the_command(inside: Study) -> None:
    (RUNS / "lora/skip/seed-1/manifest.json").unlink()
    shutil.rmtree(RUNS / "lora/update_1/seed-0")
    damaged = RUNS / "none/plain/seed-0/records.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    log = Path("results/logs/train/tiny/lora/seed-0.log")
    log.write_text("ponderttt: something broke\n")
    text = report("config.yaml")
    assert text.startswith("results: 8 of 11 runs")
    assert "missing   test tiny lora/skip seed 1" in text
    assert "failed    test tiny lora/update_1 seed 0: something broke" in text
    assert f"damaged   test tiny none/plain seed 0: {damaged}: its sha256 differs" in text
    command = text.partition("Run the rest: ")[2]
    assert command.count("records.parquet") == 3
    for part in command.split(" && "):
        ran = inside.run(*shlex.split(part)[1:])
        assert ran.returncode == 0, ran.stderr
    assert report("config.yaml").startswith("results: 11 of 11 runs")
