"""Rule ``shards``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.settings.corpus import CorpusConfig
    from ponderttt.settings.mapping import from_mapping
    from ponderttt.workflow.stages.shards import make_shards

    train = snakemake.input.get("train")
    make_shards(
        from_mapping(CorpusConfig, snakemake.params.settings, "corpora"),
        snakemake.wildcards.corpus,
        snakemake.params.downloads,
        Path(snakemake.output[0]).parent,
        Path(train).parent if train else None,
        progress,
    )
