"""Rule ``control_chunks``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads):
    from ponderttt.workflow.stages.control_chunks import make_control_chunks

    params = snakemake.params
    make_control_chunks(
        params.kind,
        snakemake.wildcards.corpus,
        Path(snakemake.input.model).parent,
        Path(snakemake.input.source).parent,
        Path(snakemake.output[0]).parent,
        params.streams,
        params.chunks,
    )
