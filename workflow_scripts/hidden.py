"""Rule ``hidden``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.settings.mapping import from_mapping
    from ponderttt.settings.model import ModelConfig
    from ponderttt.workflow.stages.hidden import frozen_pass

    frozen_pass(
        from_mapping(ModelConfig, snakemake.params.model, "models"),
        Path(snakemake.input.model).parent,
        Path(snakemake.input.chunks).parent,
        Path(snakemake.output[0]).parent,
        context_chunks=int(snakemake.wildcards.context),
        keep_split=snakemake.params.keep_split,
        cache=snakemake.params.cache,
        cache_limit_bytes=snakemake.params.cache_limit_bytes,
        stage_digest=snakemake.params.code,
        progress=progress,
    )
