"""Rule ``contents``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.files.atomic import digest
    from ponderttt.settings.corpus import CorpusConfig
    from ponderttt.settings.mapping import from_mapping
    from ponderttt.workflow.stages.contents import fetch

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
