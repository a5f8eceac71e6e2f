# Records.  Methods of one trained module run side by side in one job, since they share the vocabulary projection.


rule plain:
    input:
        model=LAYOUT.model(),
        chunks=LAYOUT.chunks(),
        hidden=lambda wildcards: LAYOUT.hidden(
            wildcards.model, wildcards.corpus, context_of(wildcards.method)
        ),
    output:
        records=f"{LAYOUT.run(fast_weights='none', seed=0)}/records.parquet",
        manifest=f"{LAYOUT.run(fast_weights='none', seed=0)}/manifest.json",
    log:
        f"{RESULTS}/logs/plain/{{corpus}}/{{model}}/{{method}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/plain/{{corpus}}/{{model}}/{{method}}.tsv"
    wildcard_constraints:
        method=r"plain|context_[1-9]\d*",
    threads: all_cores
    resources:
        mem_mb=lambda wildcards: 2000 + state_mb(wildcards.corpus),
        runtime=lambda wildcards: minutes(chunk_count(wildcards.corpus) * 0.1),
        gpu=accelerator("gpu"),
        tpu=accelerator("tpu"),
    params:
        code=code("arms"),
        model=lambda wildcards: CONFIG["models"][wildcards.model],
        context=lambda wildcards: context_of(wildcards.method),
    script:
        "../workflow_scripts/arms.py"


# One rule for each kind, since a rule's outputs cannot depend on its wildcards and not every method fits every kind.
for kind in GRID.fast_weights:

    rule:
        name:
            f"arms_{kind}"
        input:
            model=LAYOUT.model(),
            chunks=LAYOUT.chunks(),
            hidden=LAYOUT.hidden(context=0),
            training=LAYOUT.training(fast_weights=kind),
            weights=LAYOUT.training(fast_weights=kind).replace(
                "manifest.json", "slow_weights.safetensors"
            ),
        output:
            records=[
                f"{LAYOUT.run(fast_weights=kind, method=method)}/records.parquet"
                for method in methods_of(kind, GRID.methods)
            ],
            manifests=[
                f"{LAYOUT.run(fast_weights=kind, method=method)}/manifest.json"
                for method in methods_of(kind, GRID.methods)
            ],
        log:
            f"{RESULTS}/logs/arms/{{corpus}}/{{model}}/{kind}/seed-{{seed}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/arms/{{corpus}}/{{model}}/{kind}/seed-{{seed}}.tsv"
        threads: all_cores
        resources:
            mem_mb=lambda wildcards: 4000 + state_mb(wildcards.corpus),
            runtime=lambda wildcards: minutes(chunk_count(wildcards.corpus) * 5),
            gpu=accelerator("gpu"),
            tpu=accelerator("tpu"),
        params:
            code=code("arms"),
            kind=kind,
            model=lambda wildcards: CONFIG["models"][wildcards.model],
            fast_weights=CONFIG["fast_weights"][kind],
            budget=GRID.budget,
            checkpoints=LAYOUT.checkpoints,
        script:
            "../workflow_scripts/arms.py"
