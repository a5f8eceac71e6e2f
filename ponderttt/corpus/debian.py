"""Fetch Debian packages and source tarballs with apt, as any user and without changes to the system's apt state.

``apt-get source`` needs ``deb-src`` lines, which most machines lack, and ``apt-get update`` needs root.  Private package
lists avoid both: the machine's own mirrors with sources enabled, kept next to the archives.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import subprocess
from pathlib import Path

from ponderttt.corpus.packages import Package
from ponderttt.errors import PonderTTTError

_STATE = ".apt"
_OFFLINE_SIGNS = (
    "Could not resolve",
    "Temporary failure resolving",
    "Could not connect",
    "Unable to connect",
    "Connection failed",
    "Connection timed out",
    "Network is unreachable",
    "No route to host",
    "Cannot initiate the connection",
)


def download_debian(package: Package, scratch: Path, cache_dir: Path) -> Path:
    """Download a ``.deb``, or the ``.orig.tar.*`` of a source package, into ``scratch``.

    Package lists (about 20 MB) are fetched if those in ``cache_dir`` do not lead to the archive.

    Raises:
        PonderTTTError: apt is not installed, no mirror can be reached, or none has the pinned version.
    """
    state = cache_dir / _STATE
    state.mkdir(parents=True, exist_ok=True)
    # apt fails when its folders are locked, so threads and concurrent runs take turns here.
    with (state / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            found = _try_download(package, scratch, state)
            if found:
                return found
            complaint = _update_lists(state)
            found = _try_download(package, scratch, state)
        except FileNotFoundError:
            raise PonderTTTError(
                f"{package.pinned}: apt-get is not installed, but this corpus needs Debian packages. Run this on "
                f"Debian or Ubuntu, or put {package.archive} into {cache_dir} yourself."
            ) from None
    if found:
        return found
    if any(sign in complaint for sign in _OFFLINE_SIGNS):
        raise PonderTTTError(
            f"{package.pinned}: the Debian mirror cannot be reached. Check the network, then run the same command again."
        )
    raise PonderTTTError(
        f"{package.pinned}: the package sources of this machine have no {package.archive}; other releases of "
        f"Debian may have it. Put that file into {cache_dir} yourself, or take the package off the list."
    )


def _try_download(package: Package, scratch: Path, state: Path) -> Path | None:
    """Return the archive, or None if the package lists do not lead to it."""
    if package.archive.endswith(".deb"):
        _apt(state, scratch, "apt-get", "download", f"{package.package}={package.version}")
        return next(scratch.glob("*.deb"), None)
    version = _source_version(package, scratch, state)
    if version is None:
        return None
    pinned = f"{package.package}={version}"
    _apt(state, scratch, "apt-get", "source", "--download-only", "--tar-only", pinned)
    path = scratch / package.archive
    return path if path.is_file() else None


def _source_version(package: Package, scratch: Path, state: Path) -> str | None:
    """Return the Debian version of the source package whose files include the pinned archive."""
    sources = _apt(state, scratch, "apt-cache", "showsrc", "--only-source", package.package)
    for stanza in sources.split("\n\n"):
        version = re.search(r"^Version: *(\S+)", stanza, re.MULTILINE)
        if version and re.search(rf" {re.escape(package.archive)}$", stanza, re.MULTILINE):
            return version.group(1)
    return None


def _update_lists(state: Path) -> str:
    """Fetch private package lists; return the output of apt."""
    parts = state / "sources"
    parts.mkdir(exist_ok=True)
    for old in parts.iterdir():
        old.unlink()
    for source in _system_sources():
        text = source.read_text(encoding="utf-8")
        if source.suffix == ".sources":
            text = re.sub(r"^Types:.*$", "Types: deb deb-src", text, flags=re.MULTILINE)
        else:
            text = re.sub(r"^\s*deb\s+(.*)$", r"deb \1\ndeb-src \1", text, flags=re.MULTILINE)
        (parts / source.name).write_text(text, encoding="utf-8")
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    return _apt(state, state, "apt-get", "update")


def _system_sources() -> list[Path]:
    """Return the files that name this machine's mirrors."""
    command = ["apt-config", "shell", "FILE", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"]
    answer = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace").stdout
    names = dict(word.split("=", 1) for word in shlex.split(answer))
    single, parts = Path(names.get("FILE", "")), Path(names.get("PARTS", ""))
    found = [single] if single.is_file() and single.suffix == ".list" else []
    if parts.is_dir():
        found += sorted(path for path in parts.iterdir() if path.suffix in (".list", ".sources"))
    return found


def _apt(state: Path, folder: Path, tool: str, *arguments: str) -> str:
    """Run an apt tool on the private lists in ``folder``; return its standard output and error.

    apt's exit status means little (an update that reaches nothing succeeds), so callers look for the file.
    """
    state = state.resolve()
    command = [tool, "-q"]
    for option in (
        f"Dir::State::Lists={state}/lists",
        f"Dir::Cache={state}/cache",
        "Dir::Etc::SourceList=/dev/null",
        f"Dir::Etc::SourceParts={state}/sources",
        "Acquire::Retries=2",
        "Acquire::http::Timeout=30",
    ):
        command += ["-o", option]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        cwd=folder,
        env=environment,
    )
    return done.stdout + "\n" + done.stderr
