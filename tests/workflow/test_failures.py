"""Refusals of the workflow are one line, and a failure leaves finished results whole."""

import csv
import fcntl
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import sha256_file
from ponderttt.names import LEARNED_METHODS
from study import CONFIG, Study

PLAIN = "results/runs/test/tiny/none/plain/seed-0/records.parquet"


def complaints(output: str) -> list[str]:
    """The lines that a failed run prints on standard error, but notes and those with which Snakemake introduces itself."""
    introductions = ("Using workflow specific profile", "ponderttt: note:")
    return [line for line in output.splitlines() if line and not line.startswith(introductions)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid__sedes": [0]}, "unknown 'sedes'; did you mean 'seeds'?"),
        ({"grid__seeds": []}, "grid.seeds is empty"),
        ({"grid__fast_weights": ["lorra"]}, "did you mean 'lora'?"),
        ({"chunk_size": 1}, "chunk_size must be at least 2, got 1"),
    ],
)
def test_a_bad_configuration_is_one_line(study: Study, changes: dict[str, object], words: str) -> None:
    study.configure(**changes)
    ran = study.run("--dry-run")
    assert ran.returncode == 1
    (line,) = complaints(ran.stderr)
    assert words in line


def test_a_second_run_in_one_results_folder_is_refused_in_one_line(study: Study) -> None:
    with (study.folder / "results/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = study.run("--force", "results/config.yaml")
    assert ran.returncode == 1
    assert complaints(ran.stderr)[-1].startswith("ponderttt: results: another run of the workflow")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("key", ["data_dir", "results_dir"])
def test_a_folder_that_cannot_be_written_is_one_line_that_names_its_key(study: Study, key: str) -> None:
    (study.folder / "a file").write_text("")
    study.configure(**{key: "a file"})
    ran = study.run()
    assert ran.returncode == 1
    line = f"ponderttt: a file: a file, not a folder; set {key} to a folder that can be written"
    assert complaints(ran.stderr)[-1] == line
    assert "Traceback" not in ran.stderr


def test_a_cache_of_snakemake_that_cannot_be_written_is_one_line(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    import snakemake.common

    from ponderttt.workflow.make import make

    monkeypatch.setattr(snakemake.common, "APPDIRS", None)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    monkeypatch.chdir(study.folder)
    with pytest.raises(PonderTTTError, match=r"^/proc/nowhere/snakemake: .* set XDG_CACHE_HOME to a folder"):
        make("config.yaml")


def test_a_job_that_outlived_its_controller_is_not_joined_by_a_second(study: Study) -> None:
    with (study.folder / "results/logs/.effective_config.log.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = study.run("--force", "results/config.yaml")
    assert ran.returncode == 1
    assert "another process is still making this result" in ran.stderr
    assert study.run("results/config.yaml").returncode == 0


def test_a_corrupt_hidden_file_is_named_with_the_command_that_rebuilds_it(copied_study: Study) -> None:
    folder = copied_study.folder
    file = "data/hidden/tiny/test/alone/stream-00000.safetensors"
    content = bytearray((folder / file).read_bytes())
    before = sha256_file(folder / file)
    content[-1] ^= 1
    (folder / file).write_bytes(content)
    ran = copied_study.run("--force", PLAIN)
    assert ran.returncode == 1
    (line,) = (line for line in complaints(ran.stderr) if line.startswith("ponderttt:"))
    assert line.startswith(f"ponderttt: {file}: its sha256 differs")
    command = line.partition("Rebuild it: ")[2]
    _, *words = shlex.split(command)
    assert words == ["--force", "data/hidden/tiny/test/alone/manifest.json"]
    assert copied_study.run(*words).returncode == 0
    manifest = json.loads((folder / file).with_name("manifest.json").read_text())
    rebuilt = sha256_file(folder / file)
    assert rebuilt == manifest["files"][Path(file).name]["sha256"] != sha256_of(bytes(content))
    # Times of execution are in the file, so only what does not depend on them is the same.
    assert len(before) == len(rebuilt)


def test_hidden_states_of_other_chunks_are_refused_and_rebuilt(copied_study: Study) -> None:
    hidden = "data/hidden/tiny/test/alone"
    path = copied_study.folder / "data/chunks/tiny/test/manifest.json"
    manifest, times = json.loads(path.read_text()), path.stat()
    manifest["files"]["chunks-00000.parquet"]["rows"] += 1
    path.write_text(json.dumps(manifest))
    # Copied or restored data may be older than what was made from other data.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    ran = copied_study.run("--force", "--allowed-rules", "plain", "--", PLAIN)
    assert ran.returncode == 1
    (line,) = (line for line in complaints(ran.stderr) if line.startswith("ponderttt:"))
    assert line.startswith(f"ponderttt: {hidden}: made from another data/chunks/tiny/test. Rebuild it: ")
    assert line.endswith(f"--force {hidden}/manifest.json")
    assert copied_study.plan(PLAIN) == {"hidden": 1, "plain": 1}


def test_a_failed_seed_is_left_out_of_the_table_if_runs_may_be_missing(copied_study: Study) -> None:
    results = copied_study.folder / "results"
    for folder in (*results.glob("training/*/*/seed-1"), *results.glob("runs/test/tiny/lora/*/seed-1")):
        shutil.rmtree(folder)
    (results / "logs/train/tiny/lora/seed-1.log").write_text("ponderttt: something broke\n")
    copied_study.configure(statistics__allow_missing=True)
    assert copied_study.plan() == {"table": 1, "figures": 1, "effective_config": 1}
    ran = copied_study.run()
    assert ran.returncode == 0, ran.stderr
    with (results / "seeds.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["fast_weights"] == "lora"]
    assert rows and {row["seed"] for row in rows} == {"0"}


def sha256_of(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def test_records_of_another_code_version_are_refused(copied_study: Study) -> None:
    path = copied_study.folder / Path(PLAIN).with_name("manifest.json")
    manifest = json.loads(path.read_text())
    manifest["facts"]["stage_digest"] = "0" * 64
    path.write_text(json.dumps(manifest))
    ran = copied_study.run("--force", "--allowed-rules", "table", "--", "results/paper_table.csv")
    assert ran.returncode == 1
    (line,) = (line for line in complaints(ran.stderr) if line.startswith("ponderttt:"))
    assert "another version of the code" in line and "snakemake --force" in line


def test_a_failed_job_is_one_line_and_leaves_the_others_finished(copied_study: Study) -> None:
    # One of the two seeds has no training to start from.
    weights = "results/training/tiny/lora/seed-1/slow_weights.safetensors"
    (copied_study.folder / weights).write_bytes(b"not weights")
    targets = [f"results/runs/test/tiny/lora/skip/seed-{seed}/records.parquet" for seed in (0, 1)]
    before = [(copied_study.folder / target).stat().st_mtime_ns for target in targets]
    ran = copied_study.run("--forcerun", "arms_lora", "--", *targets)
    assert ran.returncode == 1
    lines = [line for line in complaints(ran.stderr) if line.startswith("ponderttt:")]
    # What reads the weights first: the calibration of rules, and the policies.
    failed = 1 + len(set(LEARNED_METHODS) & set(CONFIG["grid"]["methods"]))
    assert len(lines) == failed and all(weights in line for line in lines)
    assert "Traceback" not in ran.stderr
    assert (copied_study.folder / targets[0]).stat().st_mtime_ns > before[0]
    # Its calibration failed first, so what was there is neither rebuilt nor half-written.
    assert (copied_study.folder / targets[1]).stat().st_mtime_ns == before[1]
