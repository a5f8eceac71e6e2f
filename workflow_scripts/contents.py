"""Rule ``contents``."""

from pathlib import Path
from typing import Any

from ponderttt.jobs.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.jobs.contents import fetch
    from ponderttt.mapping import from_mapping
    from ponderttt.provenance import digest
    from ponderttt.settings.corpus import CorpusConfig

    name = snakemake.wildcards.corpus
    fetch(
        from_mapping(CorpusConfig, snakemake.config["corpora"][name], f"corpora.{name}"),
        name,
        int(snakemake.wildcards.bucket),
        [Path(part).parent for part in snakemake.input.parts],
        Path(snakemake.output[0]).parent,
        digest([snakemake.params.settings, snakemake.params.code]),
        progress,
    )
