"""Rules ``plain``, ``calibrate``, ``arms_{fast_weights}`` and ``controls_{fast_weights}``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.loop.running import Budget
    from ponderttt.names import FastWeightsName, MethodName
    from ponderttt.settings.fast_weights import FastWeightsConfig
    from ponderttt.settings.mapping import from_mapping
    from ponderttt.settings.model import ModelConfig
    from ponderttt.settings.rules import RulesConfig
    from ponderttt.workflow.digests import records_code
    from ponderttt.workflow.stages.arms import ArmSettings, folders, score_arms, score_plain

    params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
    model = from_mapping(ModelConfig, params.model, "models")
    names = {"model": wildcards.model, "corpus": params.get("corpus") or wildcards.corpus}
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
        calibrating = snakemake.rule == "calibrate"
        fast_weights = FastWeightsName.parse(wildcards.fast_weights if calibrating else params.fast_weights)
        settings = ArmSettings(
            fast_weights,
            from_mapping(FastWeightsConfig, {fast_weights.kind: params.settings}, "fast_weights"),
            int(wildcards.seed),
            # Calibration makes no update, which costs 1 whatever the budget and follows no rule.
            Budget(1.0) if calibrating else Budget(params.budget, params.budget_unit),
            RulesConfig() if calibrating else from_mapping(RulesConfig, params.rules, "rules"),
        )
        score_arms(
            model,
            settings,
            names,
            model_dir,
            chunks_dir,
            hidden_dir,
            Path(inputs.training).parent,
            Path(inputs.calibration[0]).parent if inputs.get("calibration") else None,
            folders(inputs.get("policies", [])),
            {MethodName("skip"): Path(snakemake.output.manifest).parent}
            if calibrating
            else folders(snakemake.output.manifests),
            checkpoint_root=params.checkpoints,
            stage_digest=records_code(),
            threads=snakemake.threads,
            progress=progress,
            purpose="calibrate" if calibrating else "arms",
        )
