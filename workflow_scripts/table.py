"""Rule ``table``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads):
    from ponderttt.files.commands import workflow_command
    from ponderttt.settings.mapping import from_mapping
    from ponderttt.settings.statistics import StatisticsConfig
    from ponderttt.workflow.stages.table import make_table

    make_table(
        [Path(path).parent for path in snakemake.input.manifests],
        snakemake.params.records_code,
        from_mapping(StatisticsConfig, snakemake.params.statistics, "statistics"),
        snakemake.output.table,
        snakemake.output.seeds,
        snakemake.output.guide,
        command=workflow_command(snakemake.output.table),
        control_corpora=snakemake.params.control_corpora,
        model_manifests=list(snakemake.input.models),
    )
