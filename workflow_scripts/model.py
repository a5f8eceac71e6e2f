"""Rule ``model``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads):
    from ponderttt.settings.mapping import from_mapping
    from ponderttt.settings.model import ModelConfig
    from ponderttt.workflow.stages.model import make_model

    params = snakemake.params
    config = from_mapping(ModelConfig, {"family": params.family, "source": params.source}, "models")
    make_model(config, params.downloads, Path(snakemake.output[0]).parent)
