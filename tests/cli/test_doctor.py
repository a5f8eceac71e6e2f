"""The doctor names what this machine lacks and what to do about it, and fails only for what the study needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ponderttt.cli import doctor
from ponderttt.cli.doctor import Finding


@pytest.fixture(scope="module")
def offline() -> subprocess.CompletedProcess[str]:
    """`ponderttt doctor` on this machine without network and without any tool on its path."""
    nowhere = "http://127.0.0.1:9"
    environment = {
        "PATH": "/nonexistent",
        "HOME": "/nonexistent",
        "JAX_PLATFORMS": "cpu",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": f"{nowhere}/simple",
        "HF_ENDPOINT": nowhere,
    }
    command = [sys.executable, "-c", "from ponderttt.cli.main import main; main()", "doctor"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_every_topic_of_the_machine_is_reported(offline):
    for topic in (
        "python",
        "devices",
        "memory",
        "disk",
        "package index",
        "model hub",
        "slurm",
        "npm",
        "apt-get",
    ):
        assert f" {topic} " in offline.stdout, offline.stdout + offline.stderr
    assert "cpu" in offline.stdout
    assert "Traceback" not in offline.stdout + offline.stderr


def test_a_missing_need_of_the_study_fails_with_a_remedy(offline):
    assert offline.returncode == 1
    lines = offline.stdout.splitlines()
    place = next(i for i, line in enumerate(lines) if "package index" in line)
    assert lines[place].startswith("NO")
    assert "check the network" in lines[place + 1]


def test_a_missing_option_does_not_fail_and_has_a_remedy(offline):
    lines = offline.stdout.splitlines()
    for topic in ("model hub", "slurm", "npm", "apt-get"):
        place = next(i for i, line in enumerate(lines) if f" {topic} " in line)
        assert lines[place].startswith(" -")
        assert lines[place + 1].strip().startswith("→")


def test_too_little_disk_is_a_no_with_a_remedy(monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**30))
    finding = doctor._disk(tmp_path)
    assert (finding.verdict, "6 GiB" in finding.remedy) == ("no", True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**40))
    assert doctor._disk(tmp_path) == Finding("disk", "ok", f"1024.0 GiB free in {tmp_path}")


@pytest.mark.parametrize(("gigabytes", "verdict"), [(3, "no"), (16, "ok")])
def test_too_little_memory_is_a_no(monkeypatch, gigabytes, verdict):
    text = f"MemTotal: 99999999 kB\nMemAvailable: {gigabytes * 2**20} kB\n"
    monkeypatch.setattr(Path, "read_text", lambda _, encoding: text)
    finding = doctor._memory()
    assert (finding.verdict, bool(finding.remedy)) == (verdict, verdict == "no")
    assert finding.detail == f"{gigabytes}.0 GiB available"


@pytest.mark.parametrize(
    ("script", "verdict", "detail"),
    [
        ("echo a; echo b", "ok", "2 partition lines"),
        ("echo 'slurm_load_partitions: Unable to contact' >&2; exit 1", "no", "Unable to contact"),
    ],
)
def test_slurm_is_ok_only_if_it_answers(monkeypatch, tmp_path, script, verdict, detail):
    for name, body in (("sbatch", "exit 0"), ("sinfo", script)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    finding = doctor._slurm()
    assert finding.verdict == verdict
    assert detail in finding.detail


def test_a_broken_accelerator_is_reported_not_raised(monkeypatch):
    import jax

    def broken() -> None:
        raise RuntimeError("Unable to initialize backend 'tpu':\n  no such device")

    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(jax, "devices", broken)
    finding = doctor._devices()
    assert finding.verdict == "no"
    assert "\n" not in finding.detail
    assert "JAX_PLATFORMS=cpu" in finding.remedy
