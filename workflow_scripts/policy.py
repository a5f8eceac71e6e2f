"""Rule ``policy``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.loop.running import Budget
    from ponderttt.names import FastWeightsName, MethodName
    from ponderttt.settings.fast_weights import FastWeightsConfig
    from ponderttt.settings.learning import Learning
    from ponderttt.settings.mapping import from_mapping
    from ponderttt.settings.model import ModelConfig
    from ponderttt.settings.rules import RulesConfig
    from ponderttt.workflow.modules import ArmSettings
    from ponderttt.workflow.stages.policy import train_policy

    params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
    fast_weights = FastWeightsName.parse(wildcards.fast_weights)
    train_policy(
        from_mapping(ModelConfig, params.model, "models"),
        MethodName.parse(wildcards.policy),
        ArmSettings(
            fast_weights,
            from_mapping(FastWeightsConfig, {fast_weights.kind: params.settings}, "fast_weights"),
            int(wildcards.seed),
            Budget(params.budget, params.budget_unit),
            from_mapping(RulesConfig, params.rules, "rules"),
        ),
        from_mapping(Learning, params.learned, "learned"),
        Path(inputs.model).parent,
        Path(inputs.chunks).parent,
        Path(inputs.hidden).parent,
        Path(inputs.training).parent,
        Path(inputs.calibration[0]).parent if inputs.calibration else None,
        Path(inputs.taken_from[0]).parent if inputs.taken_from else None,
        Path(snakemake.output.manifest).parent,
        checkpoint_root=params.checkpoints,
        stage_digest=params.code,
        threads=snakemake.threads,
        progress=progress,
    )
