"""Commands to show in messages, as the user can paste them into a shell in the working folder."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

#: Environment variable with the configuration options of the study at hand, shell-quoted.  The Snakefile sets it for its
#: jobs, and ``ponderttt`` for its own process.
OPTIONS_VARIABLE = "PONDERTTT_OPTIONS"
DEFAULT_CONFIG = "config.yaml"


def program(name: str) -> str:
    """Return what starts a program of this environment: its name if the shell finds it, else its path."""
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not own.is_file() or (found is not None and Path(found).parent.resolve() == own.parent.resolve()):
        return name
    return shlex.quote(shown(own))


def shown(path: Path | str) -> str:
    """Return a path relative to the working folder if it is inside, else absolute; not quoted."""
    absolute, here = Path(path).absolute(), Path.cwd()
    for candidate in (absolute, absolute.parent.resolve() / absolute.name):
        if candidate.is_relative_to(here):
            return str(candidate.relative_to(here))
    return str(absolute)


def study_options(config_files: Sequence[Path | str] = (), overrides: Mapping[str, Any] | None = None) -> str:
    """Return the options that give ``snakemake`` a study's configuration; empty for the default one.

    Args:
        config_files: of ``--configfile``, in their order.
        overrides: of ``--config``.
    """
    files = [shown(path) for path in config_files]
    words = [] if files in ([], [DEFAULT_CONFIG]) else ["--configfile", *files]
    if overrides:
        words += ["--config", *(f"{key}={_value(value)}" for key, value in overrides.items())]
    return shlex.join(words)


def _value(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def workflow_command(*targets: Path | str, force: bool = False, options: str | None = None) -> str:
    """Return the command that runs the workflow of a study.

    Args:
        targets: files to make; everything if there are none.
        force: make them again even if they look up to date.
        options: from :func:`study_options`; the options of the study at hand by default.
    """
    options = os.environ.get(OPTIONS_VARIABLE, "") if options is None else options
    # Files before options: `--configfile` takes every word that follows.
    words = ["--force"] * force + [shlex.quote(str(target)) for target in targets]
    return " ".join([program("snakemake"), *words, *([options] if options else [])])


def rebuild(path: Path | str) -> str:
    """Return the command that makes a file of the workflow again even if it looks up to date."""
    return workflow_command(path, force=True)


def again_with(config_path: Path | str) -> str:
    """Return the ``ponderttt`` command of this process with another configuration."""
    return " ".join([program("ponderttt"), shlex.join([*sys.argv[1:], "--config", str(config_path)])])


@contextlib.contextmanager
def study_of(config_path: Path | str) -> Iterator[None]:
    """Within it, commands in messages name this configuration file."""
    before = os.environ.get(OPTIONS_VARIABLE)
    os.environ[OPTIONS_VARIABLE] = study_options([config_path])
    try:
        yield
    finally:
        if before is None:
            del os.environ[OPTIONS_VARIABLE]
        else:
            os.environ[OPTIONS_VARIABLE] = before
