# The study as a workflow: source files → shards → chunks → frozen pass → fast weights → records → table and figures.
# `snakemake` makes everything, `snakemake -n` says what it would do; docs/workflow.md explains the parts.

from snakemake.utils import min_version

min_version("9.8")


include: "rules/common.smk"
include: "rules/models.smk"
include: "rules/corpus.smk"
include: "rules/hidden.smk"
include: "rules/training.smk"
include: "rules/arms.smk"
include: "rules/statistics.smk"


report: "report/workflow.rst"


localrules:
    all,
    effective_config,


rule all:
    default_target: True
    input:
        f"{RESULTS}/paper_table.csv",
        f"{RESULTS}/config.yaml",
        f"{RESULTS}/drops.csv",
        [path for paths in FIGURES.values() for path in paths],


onstart:
    session.start(workflow, EXPERIMENT)
