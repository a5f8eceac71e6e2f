"""Rule ``train``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.names import FastWeightsName
    from ponderttt.settings.fast_weights import FastWeightsConfig
    from ponderttt.settings.mapping import from_mapping
    from ponderttt.settings.model import ModelConfig
    from ponderttt.settings.training import TrainingConfig
    from ponderttt.workflow.stages.train import train

    params, kind = snakemake.params, FastWeightsName.parse(snakemake.wildcards.fast_weights).kind
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
