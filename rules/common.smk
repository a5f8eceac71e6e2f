# What all rules share: the checked configuration, paths, digests of code, resources.

import os
import re
import sys
from pathlib import Path

from ponderttt.errors import ConfigError
from ponderttt.settings.experiment import load
from ponderttt.settings.layers import read_overrides
from ponderttt.settings.mapping import as_mapping
from ponderttt.names import CALIBRATED_METHODS, FastWeightsName, MethodName
from ponderttt.corpus.packages import select_packages
from ponderttt.files.atomic import sha256_file
from ponderttt.settings.corpus import settings_of_files
from ponderttt.workflow import digests, session
from ponderttt.files.commands import DEFAULT_CONFIG, OPTIONS_VARIABLE, study_options
from ponderttt.workflow.layout import (
    Layout,
    fast_weights_on,
    figure_names,
    grid_runs,
    methods_on,
    policies_on,
)

OVERRIDES = read_overrides(
    workflow.config_settings.config_args, workflow.config_settings.config
)
try:
    EXPERIMENT = load(
        *(workflow.overwrite_configfiles or [DEFAULT_CONFIG]), overrides=OVERRIDES
    )
except ConfigError as error:
    print(f"ponderttt: {error}", file=sys.stderr)
    sys.exit(1)

# With every default filled in, so that spelling one out reruns nothing.
CONFIG = as_mapping(EXPERIMENT)
config.clear()
config.update(CONFIG)
GRID = EXPERIMENT.grid
LAYOUT = Layout.of(EXPERIMENT)
DATA, RESULTS = EXPERIMENT.data_dir, EXPERIMENT.results_dir
RUNS = grid_runs(EXPERIMENT)
# (whether on the corpora that are controls, fast weights)
ARM_RULES = [
    (control, fast_weights)
    for control in ([False, True] if GRID.control_corpora else [False])
    for fast_weights in fast_weights_on(GRID, control)
]
FIGURES = {
    name: [f"{RESULTS}/figures/{name}.svg", f"{RESULTS}/figures/{name}.pdf"]
    for name in figure_names(GRID.methods)
}

# For the commands in jobs' messages and manifests.
os.environ[OPTIONS_VARIABLE] = study_options(workflow.overwrite_configfiles, OVERRIDES)


wildcard_constraints:
    model="[^/]+",
    corpus="[^/]+",
    seed=r"\d+",
    context=r"\d+",
    fast_weights=r"[a-z]+(-[a-z0-9_]+)?(\+context_\d+)?",


def one_of(names):
    """A pattern for these names and no other."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


def code(stage):
    """The digest of a rule's code: comments do not change it, an imported module does."""
    return digests.stage_code(
        stage, Path(workflow.basedir) / "workflow_scripts" / f"{stage}.py"
    )


def all_cores(wildcards):
    """A heavy job has the machine to itself: the seconds that it measures are not a neighbour's."""
    return workflow.cores


def half_the_cores(wildcards):
    """Two jobs whose seconds nobody reads go side by side: one imports and compiles while the other computes."""
    return max(1, (workflow.cores or 1) // 2)


def accelerator(kind):
    """One gpu or tpu for each heavy job where the run has some (--profile gpu, --resources gpu=8), else none."""

    def request(wildcards):
        return 1 if kind in workflow.global_resources else 0

    return request


def chunk_count(corpus):
    """At most so many chunks are in a corpus; 64 streams of 64 chunks where the configuration sets no limit."""
    settings = EXPERIMENT.corpora[corpus]
    streams = settings.max_streams or len(settings.only) or 64
    return streams * (settings.chunks_per_stream or 64)


def minutes(seconds):
    """A time limit: four times what a slow machine needs, a quarter of an hour at least."""
    return max(15, round(4 * seconds / 60))


def seconds_per_chunk(context):
    """Of the frozen pass of a small model on two cores."""
    return 3 * (int(context) + 1)


def state_mb(corpus):
    """Memory of a corpus' hidden states of width 1024."""
    return chunk_count(corpus) * EXPERIMENT.chunk_size * 1024 * 4 // 2**20


def package_rows(corpus):
    """The pinned packages of a corpus as its list has them: another sha256 or license reruns the corpus, a new line of another corpus does not."""
    settings = EXPERIMENT.corpora[corpus]
    if settings.packages is None:
        return []
    return [as_mapping(package) for package in select_packages(settings)]


def corpus_settings(wildcards):
    """Everything of a corpus but how many of its chunks are used."""
    return {**CONFIG["corpora"][wildcards.corpus], "chunks_per_stream": None}


def is_dataset(corpus):
    """Whether a corpus is rows of a dataset, made in many jobs."""
    return EXPERIMENT.corpora[corpus].is_dataset


def dataset_parts(folder, corpus):
    """The manifests of all jobs of a stage over a dataset: as many as the configuration says, whatever the data is."""
    return [
        folder(corpus, number).manifest
        for number in range(EXPERIMENT.corpora[corpus].hub.parts)
    ]


def without(settings, *keys):
    """Settings of which some have no part in a result."""
    return {key: value for key, value in settings.items() if key not in keys}


def dataset_settings(wildcards):
    """What the files of a corpus out of a dataset depend on."""
    return settings_of_files(CONFIG["corpora"][wildcards.corpus])


def contents_settings(wildcards):
    """What contents depend on: not how many streams are kept in the end; who opted out is no longer among the files."""
    settings = without(dataset_settings(wildcards), "max_streams")
    hub = EXPERIMENT.corpora[wildcards.corpus].hub
    return {
        **settings,
        "hub": without(settings["hub"], "opt_out"),
        "segment_files": hub.contents.segment_files,
        "files": file_digests(hub.decontaminate),
    }


def failures_allowed(wildcards):
    """Fewer failures are allowed: buckets ask once more for what they miss.  It says nothing of what is there."""
    corpus = EXPERIMENT.corpora[wildcards.corpus]
    return corpus.hub.contents.max_failures if corpus.kind == "stack_v2" else None


def selection_settings(wildcards):
    """What a selection depends on: of the filters those that need no content."""
    settings = without(dataset_settings(wildcards), "max_streams")
    hub, filters = settings["hub"], settings["filters"]
    return {
        **settings,
        "filters": {
            key: filters[key] for key in ("licenses", "min_bytes", "max_bytes")
        },
        "hub": without(hub, "decontaminate"),
        "files": file_digests([hub["opt_out"]]),
    }


def file_digests(paths):
    """What is in the files that a corpus names: whoever opts out later is left out of the next run."""
    found = [Path(path).expanduser() for path in paths if path is not None]
    return [sha256_file(path) if path.is_file() else "missing" for path in found]


def training_shards(wildcards):
    """Held-out corpora are cleared of whatever is in the training corpus."""
    return (
        []
        if wildcards.corpus == GRID.train_corpus
        else LAYOUT.shards(GRID.train_corpus).manifest
    )


def context_of(method):
    """The chunks of context that a method without fast weights sees."""
    return MethodName.parse(method).context


def context_under(fast_weights):
    """The chunks of context that fast weights are on top of."""
    return FastWeightsName.parse(fast_weights).context


def settings_of(fast_weights):
    """The settings of the kind, in the study or in the variant that is named."""
    name, settings = FastWeightsName.parse(fast_weights), CONFIG["fast_weights"]
    return (settings["variants"][name.variant] if name.variant else settings)[name.kind]


def calibration_for(fast_weights, control):
    """The folder of the signals of training streams; nothing where no method looks at a signal."""
    needed = any(
        method.is_calibrated for method in methods_on(GRID, fast_weights, control)
    )
    return [LAYOUT.calibration(fast_weights=fast_weights)] if needed else []


def learned_settings(policy):
    """The settings that the training of one policy reads; of the others the defaults stand."""
    name, settings = MethodName.parse(policy), CONFIG["learned"]
    if name.variant:
        settings = settings["variants"][name.variant]
    part = {"regression": "regression", "ppo": "ppo"}.get(name.base, "gate")
    return {
        key: settings[key]
        for key in (
            "features",
            "leave_out",
            "sequences",
            "logits_gb",
            "taken_from",
            part,
        )
    }


def needs_calibration(policy):
    """Whether a policy starts as a copy of a rule that looks at a signal."""
    name = MethodName.parse(policy)
    learned = EXPERIMENT.learned.of(name.variant)
    starts = name.base == "ppo" and learned.taken_from is None
    return starts and learned.ppo.warm_start in CALIBRATED_METHODS


def policy_taken(wildcards):
    """The manifest of the policy of another backbone whose network this one takes over."""
    name = MethodName.parse(wildcards.policy)
    model = EXPERIMENT.learned.of(name.variant).taken_from
    if model is None:
        return []
    return [
        LAYOUT.policy(
            model, wildcards.fast_weights, name.without_variant, wildcards.seed
        ).manifest
    ]


def keeps_split(corpus, context):
    """Whether states at the split layer are wanted: suffix adaptation reads them, on one chunk at a time."""
    return "suffix" in GRID.fast_weights and int(context) == 0
