"""Rule ``model``."""

from pathlib import Path
from typing import Any

from ponderttt.jobs.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads):
    from ponderttt.config import ModelConfig
    from ponderttt.jobs.model import make_model
    from ponderttt.mapping import from_mapping

    params = snakemake.params
    config = from_mapping(ModelConfig, {"family": params.family, "source": params.source}, "models")
    make_model(config, params.downloads, Path(snakemake.output[0]).parent)
