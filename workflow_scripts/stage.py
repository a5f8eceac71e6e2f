"""Every rule: run the stage that it names."""

from typing import Any

from ponderttt.workflow.run import run_stage

snakemake: Any

run_stage(snakemake)
