# What all rules share: the checked configuration, the folders, and functions for parameters and resources.

import os
import re
import sys
from pathlib import Path

import yaml

from ponderttt.contexts import PATTERN as CONTEXT_PATTERN
from ponderttt.contexts import Context
from ponderttt.errors import PonderTTTError
from ponderttt.files.atomic import check_folder
from ponderttt.files.commands import DEFAULT_CONFIG, OPTIONS_VARIABLE, study_options
from ponderttt.files.folder import Folder
from ponderttt.names import FastWeightsName, MethodName
from ponderttt.settings.experiment import load
from ponderttt.settings.layers import read_overrides
from ponderttt.settings.mapping import as_mapping
from ponderttt.workflow import session, stamps
from ponderttt.workflow.digests import stage_code
from ponderttt.workflow.layout import Layout, figure_names, methods_on, policies_on
from ponderttt.workflow.plans.disjoint import check_disjoint
from ponderttt.workflow.plans.needs import Needs
from ponderttt.workflow.plans.parameters import Plan
from ponderttt.workflow.plans.resources import Sizes, need, rule_name, spread, threads

OVERRIDES = read_overrides(
    workflow.config_settings.config_args, workflow.config_settings.config
)
try:
    EXPERIMENT = load(
        *(workflow.overwrite_configfiles or [DEFAULT_CONFIG]), overrides=OVERRIDES
    )
    check_disjoint(EXPERIMENT)
    # Snakemake itself looks into both folders before a run begins.
    check_folder(EXPERIMENT.data_dir, "data_dir")
    check_folder(EXPERIMENT.results_dir, "results_dir")
except PonderTTTError as error:
    print(f"ponderttt: {error}", file=sys.stderr)
    sys.exit(1)

# With every default filled in.
config.clear()
config.update(as_mapping(EXPERIMENT))
GRID = EXPERIMENT.grid
LAYOUT = Layout.of(EXPERIMENT)
DATA, RESULTS = LAYOUT.data, LAYOUT.results
PLAN, NEEDS, SIZES = Plan(EXPERIMENT), Needs(EXPERIMENT), Sizes(EXPERIMENT)
DATASETS = [name for name, corpus in EXPERIMENT.corpora.items() if corpus.is_dataset]
CONTROLS = [name for name, corpus in EXPERIMENT.corpora.items() if corpus.is_control]
MIXED = [name for name, corpus in EXPERIMENT.corpora.items() if corpus.kind == "mixed"]

# For the commands in jobs' messages and manifests.
os.environ[OPTIONS_VARIABLE] = study_options(workflow.overwrite_configfiles, OVERRIDES)

# Profiles may name a stage or a kind; Snakemake knows rules only.
GENERATED = [
    ("controls" if control else "arms", name) for control, name in NEEDS.arm_rules()
]
GENERATED += [("sequences", name) for name in EXPERIMENT.sequences.all_fast_weights]
workflow.resource_settings.overwrite_threads = spread(
    workflow.resource_settings.overwrite_threads, GENERATED
)
workflow.resource_settings.overwrite_resources = spread(
    workflow.resource_settings.overwrite_resources,
    GENERATED,
    lambda general, specific: type(general)({**general, **specific}),
)


wildcard_constraints:
    model="[^/]+",
    corpus="[^/]+",
    seed=r"\d+",
    context=f"alone|{CONTEXT_PATTERN}",
    fast_weights=rf"[a-z]+(-[a-z0-9_]+)?(\+({CONTEXT_PATTERN}))?",


def one_of(names):
    """A pattern for these names and no other."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


def settings(stage, **fixed):
    """All settings that the stage's result depends on."""
    return lambda wildcards: getattr(PLAN, stage)(**dict(wildcards.items()), **fixed)


def params(stage, of=None, **fixed):
    """The parameters of a rule: its stage, the digest of its code, and its settings.

    ``of`` names the settings if they are not those of the stage.  ``place`` cannot change a result: Snakemake does not
    compare parameters that are functions of threads.
    """
    return {
        "stage": stage,
        "code": stage_code(stage),
        "settings": settings(of or stage, **fixed),
        "place": lambda wildcards, threads: PLAN.place(wildcards.get("corpus")),
    }


def stale(stage, folders, of=None, **fixed):
    """No input: rebuild the folders if their stamps differ from the study, also where Snakemake has no record of them."""
    code, now = stage_code(stage), settings(of or stage, **fixed)

    def force(wildcards):
        for folder in [folders] if isinstance(folders, str) else folders:
            folder = Folder(folder.format(**dict(wildcards.items())))
            if folder.exists and stamps.problem(folder, now(wildcards), code):
                workflow.dag.forcefiles.add(folder.manifest)
        return []

    return force if workflow.is_main_process else []


def stale_config(wildcards):
    """No input: write the effective configuration again if it is of another study."""
    path = Path(RESULTS) / "config.yaml"
    if workflow.is_main_process and path.exists():
        if yaml.safe_load(path.read_text(encoding="utf-8")) != as_mapping(EXPERIMENT):
            workflow.dag.forcefiles.add(f"{RESULTS}/config.yaml")
    return []


def cores(stage, kind=None):
    """Threads by the table of resources."""
    return lambda wildcards: threads(
        need(stage, kind),
        workflow.cores,
        cluster=workflow.remote_exec or not workflow.local_exec,
    )


def resources(
    stage, kind=None, corpus=None, repeats=lambda _: 1, logits_gb=lambda _: 0.0
):
    """Memory, time and accelerators by the table of resources; ``corpus`` is fixed or a wildcard."""
    needed = need(stage, kind)

    def accelerator(name):
        # One for each job where the run has some (--profile gpu, --resources gpu=8).
        return lambda _: (
            1 if needed.accelerated and name in workflow.global_resources else 0
        )

    def name(wildcards):
        return corpus or wildcards.get("corpus")

    return {
        "mem_mb": lambda wildcards: SIZES.mem_mb(
            needed, name(wildcards), logits_gb(wildcards)
        ),
        "runtime": lambda wildcards: SIZES.minutes(
            needed, name(wildcards), repeats(wildcards)
        ),
        "gpu": accelerator("gpu"),
        "tpu": accelerator("tpu"),
    }


def manifests(folders):
    """The manifests of folders."""
    return [folder.manifest for folder in folders]
