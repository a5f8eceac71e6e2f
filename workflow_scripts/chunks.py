"""Rule ``chunks``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads) as progress:
    from ponderttt.workflow.stages.chunks import make_chunks

    make_chunks(
        Path(snakemake.input.model).parent,
        Path(snakemake.input.shards).parent,
        Path(snakemake.output[0]).parent,
        snakemake.params.chunk_size,
        snakemake.params.chunks_per_stream,
        progress,
    )
