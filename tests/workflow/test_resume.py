"""Kill, interrupt, run again: nothing is lost, and the result is the one of an uninterrupted run."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ponderttt.files.atomic import sha256_file
from study import Study

WEIGHTS = "results/training/tiny/lora/seed-{}/slow_weights.safetensors"


@pytest.fixture
def long_study(copied_study: Study) -> Study:
    """A study whose training has some dozens of steps, with a checkpoint after each."""
    copied_study.configure(training__epochs=8)
    return copied_study


def start(study: Study, *arguments: str) -> subprocess.Popen[str]:
    """Run the workflow in a session of its own, as a terminal would."""
    return subprocess.Popen(
        study.command(*arguments),
        cwd=study.folder,
        env=study.environment,
        start_new_session=True,
        # A shell ignores interrupts for what it runs in the background, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def job_of(controller: int, log: Path) -> psutil.Process | None:
    """The process that writes to a log file."""
    for process in psutil.Process(controller).children(recursive=True):
        try:
            if any(Path(file.path) == log for file in process.open_files()):
                return process
        except psutil.Error:
            continue
    return None


def steps_of(study: Study, seed: int, job: str = "train-tiny-lora") -> Iterator[int]:
    """Finished checkpoints of a seed's training."""
    for folder in (study.folder / "results/.checkpoints").glob(f"{job}-seed-{seed}-*/steps/*"):
        if folder.name.isdigit():
            yield int(folder.name)


def wait_for_step(
    study: Study, seed: int, step: int, controller: subprocess.Popen[str], job: str = "train-tiny-lora"
) -> None:
    deadline = time.monotonic() + 240
    while max(steps_of(study, seed, job), default=0) < step:
        assert controller.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_seed_resumes_and_equals_an_uninterrupted_run(long_study: Study) -> None:
    study, killed = long_study, 1
    targets = [WEIGHTS.format(seed) for seed in (0, 1)]
    controller = start(study, *targets)
    wait_for_step(study, killed, 10, controller)
    job = job_of(controller.pid, study.folder / f"results/logs/train/tiny/lora/seed-{killed}.log")
    assert job is not None
    job.send_signal(signal.SIGKILL)
    _, errors = controller.communicate(timeout=300)
    assert controller.returncode == 1
    assert f"train tiny lora {killed}: FAILED" in errors
    # The other seed has finished, and the killed one's checkpoints outlived the removal of its outputs.
    other = study.folder / WEIGHTS.format(1 - killed)
    finished = sha256_file(other), other.stat().st_mtime_ns
    assert not (study.folder / WEIGHTS.format(killed)).exists()
    reached = max(steps_of(study, killed))
    assert reached >= 10

    assert study.plan(*targets) == {"train": 1}
    ran = study.run(*targets)
    assert ran.returncode == 0, ran.stderr
    assert (sha256_file(other), other.stat().st_mtime_ns) == finished
    resumed = sha256_file(study.folder / WEIGHTS.format(killed))
    assert not list(steps_of(study, killed)), "checkpoints of a finished job are removed"

    ran = study.run("--force", WEIGHTS.format(killed))
    assert ran.returncode == 0, ran.stderr
    assert sha256_file(study.folder / WEIGHTS.format(killed)) == resumed


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["ppo", "gumbel_hard"])
def test_a_killed_training_of_a_policy_ends_with_the_policy_of_an_uninterrupted_one(
    policy: str, copied_study: Study
) -> None:
    study, name = copied_study, f"policy-tiny-lora-{policy}"
    study.configure(
        grid__methods=["skip", policy],
        grid__seeds=[0],
        learned={
            "sequences": 2,
            "ppo": {"iterations": 40, "rollout": 16, "environments": 2, "checkpoint_every": 1},
            "gate": {"epochs": 20, "checkpoint_every_steps": 1},
        },
    )
    target = f"results/policies/tiny/lora/{policy}/seed-0/policy.safetensors"
    controller = start(study, target)
    wait_for_step(study, 0, 5, controller, name)
    job = job_of(controller.pid, study.folder / f"results/logs/policy/tiny/lora/{policy}/seed-0.log")
    assert job is not None
    job.send_signal(signal.SIGKILL)
    controller.communicate(timeout=300)
    assert controller.returncode == 1
    reached = max(steps_of(study, 0, name))
    assert reached >= 5 and not (study.folder / target).exists()

    assert study.plan(target) == {"policy": 1}
    ran = study.run(target)
    assert ran.returncode == 0, ran.stderr
    resumed = sha256_file(study.folder / target)
    ran = study.run("--force", target)
    assert ran.returncode == 0, ran.stderr
    assert sha256_file(study.folder / target) == resumed


@pytest.mark.slow
def test_an_interrupt_leaves_a_clean_state(long_study: Study) -> None:
    study = long_study
    target = WEIGHTS.format(0)
    controller = start(study, target)
    wait_for_step(study, 0, 3, controller)
    os.killpg(controller.pid, signal.SIGINT)
    _, errors = controller.communicate(timeout=120)
    assert controller.returncode != 0
    assert "Traceback" not in errors
    folder = (study.folder / target).parent
    assert not list(folder.glob("*")) if folder.exists() else True
    assert not list(study.folder.glob("results/**/*.progress"))
    assert study.plan(target) == {"train": 1}
    # No lock is left, so no --unlock is needed.
    assert study.run(target).returncode == 0
