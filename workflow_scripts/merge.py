"""Rule ``merge``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.settings.corpus import CorpusConfig
    from ponderttt.settings.mapping import from_mapping
    from ponderttt.workflow.stages.merge import merge_buckets

    name, train = snakemake.wildcards.corpus, snakemake.input.get("train")
    merge_buckets(
        from_mapping(CorpusConfig, snakemake.config["corpora"][name], f"corpora.{name}"),
        name,
        [Path(part).parent for part in snakemake.input.parts],
        [Path(bucket).parent for bucket in snakemake.input.buckets],
        Path(snakemake.output[0]).parent,
        Path(train).parent if train else None,
    )
