# The frozen pass: every chunk is read once by the backbone, for all arms and seeds.


rule hidden:
    input:
        model=LAYOUT.model().manifest,
        chunks=LAYOUT.chunks().manifest,
    output:
        LAYOUT.hidden().manifest,
    log:
        f"{DATA}/logs/hidden/{{model}}/{{corpus}}/context-{{context}}.log",
    benchmark:
        f"{DATA}/benchmarks/hidden/{{model}}/{{corpus}}/context-{{context}}.tsv"
    threads: all_cores
    resources:
        mem_mb=lambda wildcards: 4000 + state_mb(wildcards.corpus),
        runtime=lambda wildcards: minutes(
            chunk_count(wildcards.corpus) * seconds_per_chunk(wildcards.context)
        ),
        gpu=accelerator("gpu"),
        tpu=accelerator("tpu"),
    params:
        code=code("hidden"),
        model=lambda wildcards: CONFIG["models"][wildcards.model],
        keep_split=lambda wildcards: keeps_split(wildcards.corpus, wildcards.context),
        cache=EXPERIMENT.cache,
        cache_limit_bytes=EXPERIMENT.cache_limit_bytes,
    script:
        "../workflow_scripts/hidden.py"
