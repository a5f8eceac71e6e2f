"""Stage ``model``: fetch, check and convert a backbone."""

from __future__ import annotations

from pathlib import Path

from ponderttt.models.weights import convert
from ponderttt.settings.model import ModelConfig


def make_model(config: ModelConfig, downloads: Path | str, output_dir: Path | str) -> None:
    """Write ``data/models/{model}/``; see :func:`ponderttt.models.weights.convert`."""
    convert(config, downloads, output_dir)
