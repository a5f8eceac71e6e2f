"""The display of a run: few lines, honest estimates, nothing from Snakemake but what matters."""

import io
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ponderttt.settings.experiment import load
from ponderttt.workflow.entry import Progress
from ponderttt.workflow.progress import TYPICAL_SECONDS, Display, Estimate, Running, in_words, work_of


def test_durations_read_well() -> None:
    assert [in_words(s) for s in (0.4, 41, 89.9, 200, 5400)] == ["0 s", "41 s", "90 s", "3 min", "1 h 30 min"]


def test_the_estimate_learns_from_jobs_that_ended() -> None:
    estimate = Estimate({"train": 4})
    assert estimate.remaining([], 0.0) == 4 * TYPICAL_SECONDS["train"]
    estimate.ended("train", 10.0)
    assert estimate.remaining([], 0.0) == 30.0
    # A rule that has not run yet is scaled by the pace of those that have.
    estimate = Estimate({"train": 1, "hidden": 1})
    estimate.ended("train", TYPICAL_SECONDS["train"] / 2)
    assert estimate.remaining([], 0.0) == TYPICAL_SECONDS["hidden"] / 2


def test_a_large_corpus_is_no_slow_machine() -> None:
    estimate = Estimate({"hidden": 400.0, "train": 10.0})
    estimate.ended("hidden", 360 * TYPICAL_SECONDS["hidden"], work=360.0)
    expected = 40 * TYPICAL_SECONDS["hidden"] + 10 * TYPICAL_SECONDS["train"]
    assert estimate.remaining([], 0.0) == pytest.approx(expected)


def test_the_work_of_a_job_is_the_chunks_that_it_reads() -> None:
    experiment = load("config.yaml")
    heldout, training = 40 * 8, 12 * 8
    assert work_of(experiment, "arms_memory_full", {"corpus": "python-heldout", "seed": "0"}) == heldout
    assert work_of(experiment, "calibrate", {"fast_weights": "memory"}) == training
    assert work_of(experiment, "train", {"seed": "0"}) == training * experiment.training.epochs
    assert work_of(experiment, "table", {}) == 1


def test_a_variant_is_expected_to_take_as_long_as_its_kind() -> None:
    for rule in ("arms_lora_rank_64", "arms_memory_full", "controls_lora_rank_64"):
        kind = "_".join(rule.split("_")[:2])
        assert Estimate({}).of_rule(rule) == Estimate({}).of_rule(kind) == TYPICAL_SECONDS[kind]


def test_the_estimate_counts_what_a_running_job_has_done(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    Progress(Path(f"{log}.progress"))(3, 4)
    estimate = Estimate({"train": 1})
    assert estimate.remaining([Running("train", "", str(log), started=0.0)], now=30.0) == pytest.approx(10.0)


def event(kind: str | None, message: str = "", level: int = logging.INFO, **fields: Any) -> logging.LogRecord:
    record = logging.LogRecord("snakemake", level, "", 0, message, None, None)
    record.__dict__.update(event=kind, **fields)
    return record


def test_the_display_tells_ends_and_failures_and_drops_noise() -> None:
    stream = io.StringIO()
    display = Display([("train", {})] * 2, stream=stream)
    for number in (1, 2):
        fields = {"rule_name": "train", "wildcards": {"model": "m", "seed": number}, "log": ["x.log"]}
        display.emit(event("job_info", jobid=number, **fields))
    display.emit(event(None, "Select jobs to execute..."))
    display.emit(event("job_finished", job_id=1))
    display.emit(event("job_error", level=logging.ERROR, jobid=2))
    display.emit(event("job_error", level=logging.ERROR, jobid=2))
    display.emit(event("error", "CalledProcessError in file x", logging.ERROR))
    display.emit(event("error", "a rule is wrong", logging.ERROR))
    display.close()
    first, second, third = stream.getvalue().splitlines()
    assert first.startswith("[1/2] train m 1: done in 0 s")
    assert second == "[1/2] train m 2: FAILED; log: x.log"
    assert third == "a rule is wrong"


def test_progress_of_a_job_is_shown_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponderttt.workflow.progress.LINE_SECONDS", 0.05)
    log = tmp_path / "hidden.log"
    Path(f"{log}.progress").write_text(json.dumps({"done": 2, "total": 8, "what": "loss 1.5"}))
    stream = io.StringIO()
    display = Display([("hidden", {})], stream=stream)
    display.emit(event("job_info", jobid=1, rule_name="hidden", wildcards={"corpus": "c"}, log=[str(log)]))
    deadline = time.monotonic() + 10
    while not stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.02)
    display.close()
    assert stream.getvalue().startswith("[0/1] hidden c: 2 of 8 (loss 1.5)")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("raise PonderTTTError('the thing is wrong; do this')", "the thing is wrong; do this"),
        ("1 / 0", "unexpected ZeroDivisionError: division by zero (traceback in job.log)"),
    ],
)
def test_an_error_of_a_job_is_one_line_in_its_log_and_on_standard_error(
    tmp_path: Path, statement: str, words: str
) -> None:
    script = f"""
from ponderttt.errors import PonderTTTError
from ponderttt.workflow.entry import job
with job("job.log", 1):
    print("said by the way")
    {statement}
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"ponderttt: {words}\n")
    lines = (tmp_path / "job.log").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("said by the way", f"ponderttt: {words}")
