# Corpora: source files that pass every filter, then chunks under each model's tokenizer.


rule shards:
    input:
        stale("shards", LAYOUT.shards()),
        train=lambda wildcards: manifests(NEEDS.training_shards(wildcards.corpus)),
    output:
        manifest=LAYOUT.shards().manifest,
    log:
        f"{DATA}/logs/shards/{{corpus}}.log",
    benchmark:
        f"{DATA}/benchmarks/shards/{{corpus}}.tsv"
    wildcard_constraints:
        corpus=one_of(name for name in EXPERIMENT.corpora if name not in DATASETS),
    threads: cores("shards")
    resources:
        **resources("shards"),
    params:
        **params("shards"),
    script:
        "../workflow_scripts/stage.py"


# A dataset of the hub: its parts are read, files of one repository meet in one bucket, contents are fetched by bucket.
rule select:
    input:
        stale("select", LAYOUT.selected()),
    output:
        manifest=LAYOUT.selected().manifest,
    log:
        f"{DATA}/logs/select/{{corpus}}/part-{{part}}.log",
    benchmark:
        f"{DATA}/benchmarks/select/{{corpus}}/part-{{part}}.tsv"
    wildcard_constraints:
        corpus=one_of(DATASETS),
    threads: cores("select")
    resources:
        **resources("select"),
    params:
        **params("select"),
    script:
        "../workflow_scripts/stage.py"


rule contents:
    input:
        stale("contents", LAYOUT.contents()),
        parts=lambda wildcards: [
            LAYOUT.selected(wildcards.corpus, part).manifest
            for part in NEEDS.parts(wildcards.corpus)
        ],
    output:
        manifest=LAYOUT.contents().manifest,
    log:
        f"{DATA}/logs/contents/{{corpus}}/bucket-{{bucket}}.log",
    benchmark:
        f"{DATA}/benchmarks/contents/{{corpus}}/bucket-{{bucket}}.tsv"
    wildcard_constraints:
        corpus=one_of(DATASETS),
    threads: cores("contents")
    resources:
        **resources("contents"),
    params:
        **params("contents"),
    script:
        "../workflow_scripts/stage.py"


rule merge:
    input:
        stale("merge", LAYOUT.shards()),
        parts=lambda wildcards: [
            LAYOUT.selected(wildcards.corpus, part).manifest
            for part in NEEDS.parts(wildcards.corpus)
        ],
        buckets=lambda wildcards: [
            LAYOUT.contents(wildcards.corpus, part).manifest
            for part in NEEDS.parts(wildcards.corpus)
        ],
        train=lambda wildcards: manifests(NEEDS.training_shards(wildcards.corpus)),
    output:
        manifest=LAYOUT.shards().manifest,
    log:
        f"{DATA}/logs/merge/{{corpus}}.log",
    benchmark:
        f"{DATA}/benchmarks/merge/{{corpus}}.tsv"
    wildcard_constraints:
        corpus=one_of(DATASETS),
    threads: cores("merge")
    resources:
        **resources("merge"),
    params:
        **params("merge"),
    script:
        "../workflow_scripts/stage.py"


rule chunks:
    input:
        stale("chunks", LAYOUT.chunks()),
        model=LAYOUT.model().manifest,
        shards=LAYOUT.shards().manifest,
    output:
        manifest=LAYOUT.chunks().manifest,
    log:
        f"{DATA}/logs/chunks/{{model}}/{{corpus}}.log",
    benchmark:
        f"{DATA}/benchmarks/chunks/{{model}}/{{corpus}}.tsv"
    wildcard_constraints:
        corpus=one_of(
            name for name in EXPERIMENT.corpora if name not in CONTROLS + MIXED
        ),
    threads: cores("chunks")
    resources:
        **resources("chunks"),
    params:
        **params("chunks"),
    script:
        "../workflow_scripts/stage.py"


rule control_chunks:
    input:
        stale("control_chunks", LAYOUT.chunks()),
        model=LAYOUT.model().manifest,
        source=lambda wildcards: LAYOUT.chunks(
            wildcards.model, EXPERIMENT.corpora[wildcards.corpus].source
        ).manifest,
    output:
        manifest=LAYOUT.chunks().manifest,
    log:
        f"{DATA}/logs/control_chunks/{{model}}/{{corpus}}.log",
    benchmark:
        f"{DATA}/benchmarks/control_chunks/{{model}}/{{corpus}}.tsv"
    wildcard_constraints:
        corpus=one_of(CONTROLS),
    threads: cores("control_chunks")
    resources:
        **resources("control_chunks"),
    params:
        **params("control_chunks"),
    script:
        "../workflow_scripts/stage.py"


# A corpus whose streams are segments of other corpora.
rule mixed_chunks:
    input:
        stale("mixed_chunks", LAYOUT.chunks()),
        model=LAYOUT.model().manifest,
        sources=lambda wildcards: [
            LAYOUT.chunks(wildcards.model, source).manifest
            for source in EXPERIMENT.sources_of(wildcards.corpus)
        ],
    output:
        manifest=LAYOUT.chunks().manifest,
    log:
        f"{DATA}/logs/mixed_chunks/{{model}}/{{corpus}}.log",
    benchmark:
        f"{DATA}/benchmarks/mixed_chunks/{{model}}/{{corpus}}.tsv"
    wildcard_constraints:
        corpus=one_of(MIXED),
    threads: cores("mixed_chunks")
    resources:
        **resources("mixed_chunks"),
    params:
        **params("mixed_chunks"),
    script:
        "../workflow_scripts/stage.py"
