# Corpora: source files that pass every filter, then chunks under each model's tokenizer.


rule shards:
    input:
        train=training_shards,
    output:
        LAYOUT.shards(),
    log:
        f"{DATA}/logs/shards/{{corpus}}.log",
    benchmark:
        f"{DATA}/benchmarks/shards/{{corpus}}.tsv"
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


rule chunks:
    input:
        model=LAYOUT.model(),
        shards=LAYOUT.shards(),
    output:
        LAYOUT.chunks(),
    log:
        f"{DATA}/logs/chunks/{{model}}/{{corpus}}.log",
    benchmark:
        f"{DATA}/benchmarks/chunks/{{model}}/{{corpus}}.tsv"
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
