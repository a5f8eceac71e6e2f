"""Rule ``train``."""

from pathlib import Path
from typing import Any

from ponderttt.jobs.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.config import ModelConfig, TrainingConfig
    from ponderttt.jobs.train import train
    from ponderttt.mapping import from_mapping
    from ponderttt.names import kind_and_context
    from ponderttt.settings.fast_weights import FastWeightsConfig

    params, (kind, _) = snakemake.params, kind_and_context(snakemake.wildcards.fast_weights)
    train(
        from_mapping(ModelConfig, params.model, "models"),
        kind,
        from_mapping(FastWeightsConfig, {kind: params.settings}, "fast_weights"),
        from_mapping(TrainingConfig, params.training, "training"),
        int(snakemake.wildcards.seed),
        Path(snakemake.input.model).parent,
        Path(snakemake.input.chunks).parent,
        Path(snakemake.input.hidden).parent,
        Path(snakemake.output.manifest).parent,
        checkpoint_root=params.checkpoints,
        stage_digest=params.code,
        threads=snakemake.threads,
        progress=progress,
    )
