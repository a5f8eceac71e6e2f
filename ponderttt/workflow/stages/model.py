"""Stage ``model``: fetch, check and convert a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ponderttt.models.weights import convert
from ponderttt.settings.mapping import settings
from ponderttt.settings.model import ModelConfig, ModelSource
from ponderttt.workflow.jobs import Job


@settings
class Settings:
    """Source and family of the backbone."""

    family: Literal["llama", "gpt2", "gemma3"]
    source: ModelSource


@dataclass(frozen=True)
class Inputs:
    """Nothing."""


def run(settings: Settings, inputs: Inputs, job: Job) -> None:
    """Write ``data/models/{model}/``; see :func:`ponderttt.models.weights.convert`."""
    convert(ModelConfig(settings.family, settings.source), job.place.downloads, job.folder)
