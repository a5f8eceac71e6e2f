"""Stage ``effective``: the effective configuration, every default filled in, as one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ponderttt.files.atomic import atomic_path
from ponderttt.settings.mapping import settings
from ponderttt.workflow.jobs import Job


@settings
class Settings:
    """The whole configuration as plain values."""

    config: dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """Nothing."""


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``results/config.yaml``."""
    import yaml

    with atomic_path(job.file("config")) as temporary:
        text = yaml.safe_dump(settings.config, sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")
