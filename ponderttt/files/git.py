"""Ask git about a folder: read only, and without running a program that the folder names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class GitError(Exception):
    """Git is not installed or did not answer; the text is what it said, on one line."""


def git(folder: Path | str, *arguments: str, statuses: tuple[int, ...] = (0,)) -> bytes:
    """Return the output of a git command in ``folder``.

    Variables such as ``GIT_DIR``, which git sets for its hooks, would point at another repository, so only
    settings of the user (``GIT_CONFIG…``) are passed on.

    Args:
        folder: where git looks for the repository, upwards.
        arguments: the command; it must only read.
        statuses: exit statuses that are answers.

    Raises:
        GitError: git is missing, refuses, or may not open a folder in ``folder``.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("GIT_CONFIG")}
    kept |= {"LC_ALL": "C", "GIT_DISCOVERY_ACROSS_FILESYSTEM": "1"}
    # The repository's own configuration may name a program to run as file-system monitor.
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, env=kept)
    except OSError:
        raise GitError("git is not installed") from None
    # Git only warns of a folder that it cannot open, and leaves out what is in it.
    if done.returncode not in statuses or b"could not open directory" in done.stderr:
        said = " ".join(done.stderr.decode("utf-8", "backslashreplace").split())
        raise GitError(said.removeprefix("fatal: ") or f"exit status {done.returncode}")
    return done.stdout
