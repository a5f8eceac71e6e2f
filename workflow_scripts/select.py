"""Rule ``select``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.settings.corpus import CorpusConfig
    from ponderttt.settings.mapping import from_mapping
    from ponderttt.workflow.stages.select import select

    name = snakemake.wildcards.corpus
    select(
        from_mapping(CorpusConfig, snakemake.config["corpora"][name], f"corpora.{name}"),
        name,
        int(snakemake.wildcards.part),
        Path(snakemake.output[0]).parent,
        progress,
    )
