"""Rules ``plain`` and ``arms_{fast_weights}``."""

from pathlib import Path
from typing import Any

from ponderttt.jobs.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.config import FastWeightsConfig, ModelConfig, from_mapping
    from ponderttt.jobs.arms import folders, score_arms, score_plain
    from ponderttt.jobs.stages import records_code

    params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
    model = from_mapping(ModelConfig, params.model, "models")
    names = {"model": wildcards.model, "corpus": wildcards.corpus}
    model_dir, chunks_dir, hidden_dir = (
        Path(path).parent for path in (inputs.model, inputs.chunks, inputs.hidden)
    )
    if snakemake.rule == "plain":
        score_plain(
            model,
            params.context,
            names,
            model_dir,
            chunks_dir,
            hidden_dir,
            Path(snakemake.output.manifest).parent,
            stage_digest=records_code(),
            threads=snakemake.threads,
        )
    else:
        score_arms(
            model,
            params.kind,
            from_mapping(FastWeightsConfig, {params.kind: params.fast_weights}, "fast_weights"),
            params.budget,
            int(wildcards.seed),
            names,
            model_dir,
            chunks_dir,
            hidden_dir,
            Path(inputs.training).parent,
            folders(snakemake.output.manifests),
            checkpoint_root=params.checkpoints,
            stage_digest=records_code(),
            threads=snakemake.threads,
            progress=progress,
        )
