# Records.  Methods of one trained module run side by side in one job, since they share the vocabulary projection.


rule plain:
    input:
        model=LAYOUT.model().manifest,
        chunks=LAYOUT.chunks().manifest,
        hidden=lambda wildcards: LAYOUT.hidden(
            wildcards.model, wildcards.corpus, context_of(wildcards.method)
        ).manifest,
    output:
        records=LAYOUT.run(fast_weights="none", seed=0).file("records.parquet"),
        manifest=LAYOUT.run(fast_weights="none", seed=0).manifest,
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


# The signals of training streams, from which rules learn what is high and what is low.
rule calibrate:
    input:
        model=LAYOUT.model().manifest,
        chunks=LAYOUT.chunks(corpus=GRID.train_corpus).manifest,
        hidden=lambda wildcards: LAYOUT.hidden(
            wildcards.model, GRID.train_corpus, context_under(wildcards.fast_weights)
        ).manifest,
        training=LAYOUT.training().manifest,
        weights=LAYOUT.training().file("slow_weights.safetensors"),
    output:
        records=LAYOUT.calibration().file("records.parquet"),
        manifest=LAYOUT.calibration().manifest,
    log:
        f"{RESULTS}/logs/calibrate/{{model}}/{{fast_weights}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/calibrate/{{model}}/{{fast_weights}}/seed-{{seed}}.tsv"
    priority: 1
    threads: all_cores
    resources:
        mem_mb=lambda wildcards: 4000 + state_mb(GRID.train_corpus),
        runtime=lambda wildcards: minutes(chunk_count(GRID.train_corpus)),
        gpu=accelerator("gpu"),
        tpu=accelerator("tpu"),
    params:
        code=code("arms"),
        corpus=GRID.train_corpus,
        model=lambda wildcards: CONFIG["models"][wildcards.model],
        settings=lambda wildcards: settings_of(wildcards.fast_weights),
        checkpoints=LAYOUT.checkpoints,
    script:
        "../workflow_scripts/arms.py"


# One rule for each name, since a rule's outputs cannot depend on its wildcards and not every method fits every kind.
for control, fast_weights in ARM_RULES:

    rule:
        name:
            f"{'controls' if control else 'arms'}_{re.sub('[-+]', '_', str(fast_weights))}"
        input:
            model=LAYOUT.model().manifest,
            chunks=LAYOUT.chunks().manifest,
            hidden=LAYOUT.hidden(context=fast_weights.context).manifest,
            training=LAYOUT.training(fast_weights=fast_weights).manifest,
            weights=LAYOUT.training(fast_weights=fast_weights).file(
                "slow_weights.safetensors"
            ),
            calibration=[
                folder.manifest for folder in calibration_for(fast_weights, control)
            ],
            signals=[
                folder.file("records.parquet")
                for folder in calibration_for(fast_weights, control)
            ],
            policies=[
                LAYOUT.policy(fast_weights=fast_weights, policy=policy).manifest
                for policy in policies_on(GRID, fast_weights, control)
            ],
        output:
            records=[
                LAYOUT.run(fast_weights=fast_weights, method=method).file(
                    "records.parquet"
                )
                for method in methods_on(GRID, fast_weights, control)
            ],
            manifests=[
                LAYOUT.run(fast_weights=fast_weights, method=method).manifest
                for method in methods_on(GRID, fast_weights, control)
            ],
        log:
            f"{RESULTS}/logs/arms/{{corpus}}/{{model}}/{fast_weights}/seed-{{seed}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/arms/{{corpus}}/{{model}}/{fast_weights}/seed-{{seed}}.tsv"
        wildcard_constraints:
            corpus=one_of(GRID.control_corpora if control else GRID.eval_corpora),
        threads: all_cores
        resources:
            mem_mb=lambda wildcards: 4000 + state_mb(wildcards.corpus),
            runtime=lambda wildcards: minutes(chunk_count(wildcards.corpus) * 15),
            gpu=accelerator("gpu"),
            tpu=accelerator("tpu"),
        params:
            code=code("arms"),
            fast_weights=str(fast_weights),
            model=lambda wildcards: CONFIG["models"][wildcards.model],
            settings=settings_of(str(fast_weights)),
            budget=GRID.budget,
            budget_unit=GRID.budget_unit,
            rules=CONFIG["rules"],
            checkpoints=LAYOUT.checkpoints,
        script:
            "../workflow_scripts/arms.py"
