"""The commands that make the files of a study, for messages; they know nothing of what is in it."""

from __future__ import annotations

import os
from pathlib import Path

#: Name in the environment of the command that runs this study, set by the Snakefile for its jobs.
COMMAND_VARIABLE = "PONDERTTT_COMMAND"
DEFAULT_CONFIG = "config.yaml"


def command_of(config_path: Path | str) -> str:
    """``snakemake``, with the configuration named unless it is the default one."""
    return "snakemake" if str(config_path) == DEFAULT_CONFIG else f"snakemake --configfile {config_path}"


def rebuild(path: Path | str) -> str:
    """The command that makes a file of the workflow again, though it may look up to date."""
    return f"{os.environ.get(COMMAND_VARIABLE, 'snakemake')} --force {path}"
