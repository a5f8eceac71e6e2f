"""Rule ``effective_config``."""

from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads):
    from ponderttt.workflow.stages.effective import write_effective

    write_effective(snakemake.params.config, snakemake.output[0])
