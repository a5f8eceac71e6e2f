"""Rule ``figures``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads):
    from ponderttt.settings.mapping import from_mapping
    from ponderttt.settings.statistics import StatisticsConfig
    from ponderttt.workflow.stages.figures import make_figures

    make_figures(
        snakemake.input.table,
        snakemake.input.seeds,
        [Path(path).parent for path in snakemake.input.manifests],
        list(snakemake.input.logs),
        list(snakemake.input.policies),
        snakemake.params.records_code,
        from_mapping(StatisticsConfig, snakemake.params.statistics, "statistics"),
        {name: list(snakemake.output[name]) for name in snakemake.params.names},
    )
