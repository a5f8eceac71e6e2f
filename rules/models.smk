# Backbones: fetched, checked, converted once.


rule model:
    output:
        LAYOUT.model().manifest,
    log:
        f"{DATA}/logs/model/{{model}}.log",
    benchmark:
        f"{DATA}/benchmarks/model/{{model}}.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards: 4000,
        runtime=lambda wildcards: minutes(300),
    params:
        code=code("model"),
        source=lambda wildcards: CONFIG["models"][wildcards.model]["source"],
        family=lambda wildcards: CONFIG["models"][wildcards.model]["family"],
        downloads=LAYOUT.downloads,
    script:
        "../workflow_scripts/model.py"
