# Backbones: fetched, checked, converted once.


rule model:
    input:
        stale("model", LAYOUT.model()),
    output:
        manifest=LAYOUT.model().manifest,
    log:
        f"{DATA}/logs/model/{{model}}.log",
    benchmark:
        f"{DATA}/benchmarks/model/{{model}}.tsv"
    threads: cores("model")
    resources:
        **resources("model"),
    params:
        **params("model"),
    script:
        "../workflow_scripts/stage.py"
