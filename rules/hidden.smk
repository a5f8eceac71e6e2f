# The frozen pass: the backbone reads every chunk once, for all arms and seeds.


rule hidden:
    input:
        stale("hidden", LAYOUT.hidden()),
        model=LAYOUT.model().manifest,
        chunks=LAYOUT.chunks().manifest,
    output:
        manifest=LAYOUT.hidden().manifest,
    log:
        f"{DATA}/logs/hidden/{{model}}/{{corpus}}/{{context}}.log",
    benchmark:
        f"{DATA}/benchmarks/hidden/{{model}}/{{corpus}}/{{context}}.tsv"
    threads: cores("hidden")
    resources:
        **resources(
            "hidden",
            repeats=lambda wildcards: Context.parse(wildcards.context).chunks + 1,
        ),
    params:
        **params("hidden"),
    script:
        "../workflow_scripts/stage.py"
