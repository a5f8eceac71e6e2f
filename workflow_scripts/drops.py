"""Rule ``drops``."""

from pathlib import Path
from typing import Any

from ponderttt.workflow.entry import job

snakemake: Any

with job(snakemake.log[0], snakemake.threads):
    from ponderttt.corpus.drops import format_drop_report, write_drop_report
    from ponderttt.files.commands import rebuild

    folders = [Path(path).parent for path in snakemake.input.shards]
    print(
        format_drop_report(
            write_drop_report(snakemake.output[0], folders, rebuild(snakemake.input.shards[0]))
        )
    )
