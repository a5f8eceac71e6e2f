# Corpora: source files that pass every filter, then chunks under each model's tokenizer.


rule shards:
    input:
        train=training_shards,
    output:
        LAYOUT.shards().manifest,
    log:
        f"{DATA}/logs/shards/{{corpus}}.log",
    benchmark:
        f"{DATA}/benchmarks/shards/{{corpus}}.tsv"
    wildcard_constraints:
        corpus=one_of(name for name in EXPERIMENT.corpora if not is_dataset(name)),
    threads: 1
    resources:
        mem_mb=lambda wildcards: 3000,
        runtime=lambda wildcards: minutes(600),
    params:
        code=code("shards"),
        settings=corpus_settings,
        packages=lambda wildcards: package_rows(wildcards.corpus),
        downloads=LAYOUT.downloads,
    script:
        "../workflow_scripts/shards.py"


# A dataset of the hub: its parts are read, files of one repository meet in one bucket, contents are fetched by bucket.
rule select:
    output:
        LAYOUT.selected().manifest,
    log:
        f"{DATA}/logs/select/{{corpus}}/part-{{part}}.log",
    benchmark:
        f"{DATA}/benchmarks/select/{{corpus}}/part-{{part}}.tsv"
    wildcard_constraints:
        corpus=one_of(name for name in EXPERIMENT.corpora if is_dataset(name)),
    threads: 1
    resources:
        mem_mb=lambda wildcards: 2000,
        runtime=lambda wildcards: minutes(6 * 3600),
    params:
        code=code("select"),
        settings=selection_settings,
    script:
        "../workflow_scripts/select.py"


rule contents:
    input:
        parts=lambda wildcards: dataset_parts(LAYOUT.selected, wildcards.corpus),
    output:
        LAYOUT.contents().manifest,
    log:
        f"{DATA}/logs/contents/{{corpus}}/bucket-{{bucket}}.log",
    benchmark:
        f"{DATA}/benchmarks/contents/{{corpus}}/bucket-{{bucket}}.tsv"
    wildcard_constraints:
        corpus=one_of(name for name in EXPERIMENT.corpora if is_dataset(name)),
    threads: 1
    resources:
        mem_mb=lambda wildcards: 3000,
        runtime=lambda wildcards: minutes(6 * 3600),
    params:
        code=code("contents"),
        # How they are fetched changes nothing of what they are, so it is not among them.
        settings=contents_settings,
        max_failures=failures_allowed,
    script:
        "../workflow_scripts/contents.py"


rule merge:
    input:
        parts=lambda wildcards: dataset_parts(LAYOUT.selected, wildcards.corpus),
        buckets=lambda wildcards: dataset_parts(LAYOUT.contents, wildcards.corpus),
        train=training_shards,
    output:
        LAYOUT.shards().manifest,
    log:
        f"{DATA}/logs/merge/{{corpus}}.log",
    benchmark:
        f"{DATA}/benchmarks/merge/{{corpus}}.tsv"
    wildcard_constraints:
        corpus=one_of(name for name in EXPERIMENT.corpora if is_dataset(name)),
    threads: 1
    resources:
        mem_mb=lambda wildcards: 3000,
        runtime=lambda wildcards: minutes(3 * 3600),
    params:
        code=code("merge"),
        settings=dataset_settings,
    script:
        "../workflow_scripts/merge.py"


rule chunks:
    input:
        model=LAYOUT.model().manifest,
        shards=LAYOUT.shards().manifest,
    output:
        LAYOUT.chunks().manifest,
    log:
        f"{DATA}/logs/chunks/{{model}}/{{corpus}}.log",
    benchmark:
        f"{DATA}/benchmarks/chunks/{{model}}/{{corpus}}.tsv"
    wildcard_constraints:
        corpus=one_of(
            name
            for name, corpus in EXPERIMENT.corpora.items()
            if not corpus.is_control
        ),
    threads: 1
    resources:
        mem_mb=lambda wildcards: 3000,
        runtime=lambda wildcards: minutes(chunk_count(wildcards.corpus) * 0.2),
    params:
        code=code("chunks"),
        chunk_size=EXPERIMENT.chunk_size,
        chunks_per_stream=lambda wildcards: EXPERIMENT.corpora[
            wildcards.corpus
        ].chunks_per_stream,
    script:
        "../workflow_scripts/chunks.py"


rule control_chunks:
    input:
        model=LAYOUT.model().manifest,
        source=lambda wildcards: LAYOUT.chunks(
            wildcards.model, EXPERIMENT.corpora[wildcards.corpus].source
        ).manifest,
    output:
        LAYOUT.chunks().manifest,
    log:
        f"{DATA}/logs/control_chunks/{{model}}/{{corpus}}.log",
    benchmark:
        f"{DATA}/benchmarks/control_chunks/{{model}}/{{corpus}}.tsv"
    wildcard_constraints:
        corpus=one_of(
            name for name, corpus in EXPERIMENT.corpora.items() if corpus.is_control
        ),
    threads: 1
    resources:
        mem_mb=lambda wildcards: 2000,
        runtime=lambda wildcards: minutes(60),
    params:
        code=code("control_chunks"),
        kind=lambda wildcards: EXPERIMENT.corpora[wildcards.corpus].kind,
        streams=lambda wildcards: EXPERIMENT.corpora[wildcards.corpus].max_streams,
        chunks=lambda wildcards: EXPERIMENT.corpora[wildcards.corpus].chunks_per_stream,
    script:
        "../workflow_scripts/control_chunks.py"
