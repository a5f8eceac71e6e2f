# Records.  Methods on one adapter run side by side in one job, since they share the vocabulary projection.


rule plain:
    input:
        stale("plain", LAYOUT.run(fast_weights="none", seed=0)),
        model=LAYOUT.model().manifest,
        chunks=LAYOUT.chunks().manifest,
        hidden=lambda wildcards: LAYOUT.hidden(
            wildcards.model,
            wildcards.corpus,
            MethodName.parse(wildcards.method).context,
        ).manifest,
    output:
        records=LAYOUT.run(fast_weights="none", seed=0).file("records.parquet"),
        manifest=LAYOUT.run(fast_weights="none", seed=0).manifest,
    log:
        f"{RESULTS}/logs/plain/{{corpus}}/{{model}}/{{method}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/plain/{{corpus}}/{{model}}/{{method}}.tsv"
    wildcard_constraints:
        method=f"plain|{CONTEXT_PATTERN}",
    threads: cores("plain")
    resources:
        **resources("plain"),
    params:
        **params("plain"),
    script:
        "../workflow_scripts/stage.py"


# The signals of training streams, which rules rank by.
rule calibrate:
    input:
        stale("arms", LAYOUT.calibration(), of="calibrate"),
        model=LAYOUT.model().manifest,
        chunks=LAYOUT.chunks(corpus=GRID.deciding_corpus).manifest,
        hidden=lambda wildcards: LAYOUT.hidden(
            wildcards.model,
            GRID.deciding_corpus,
            FastWeightsName.parse(wildcards.fast_weights).context,
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
    threads: cores("calibrate")
    resources:
        **resources("calibrate", corpus=GRID.deciding_corpus),
    params:
        **params("arms", of="calibrate"),
    script:
        "../workflow_scripts/stage.py"


# One rule for each name: a rule's outputs cannot depend on its wildcards, and not every method fits every kind.
for control, fast_weights in NEEDS.arm_rules():
    stage = "controls" if control else "arms"
    runs = [
        LAYOUT.run(fast_weights=fast_weights, method=method)
        for method in methods_on(GRID, fast_weights, control)
    ]
    signals = NEEDS.calibration(fast_weights, control)

    rule:
        name:
            rule_name(stage, fast_weights)
        input:
            stale("arms", runs, fast_weights=str(fast_weights)),
            model=LAYOUT.model().manifest,
            chunks=LAYOUT.chunks().manifest,
            hidden=LAYOUT.hidden(context=fast_weights.context).manifest,
            training=LAYOUT.training(fast_weights=fast_weights).manifest,
            weights=LAYOUT.training(fast_weights=fast_weights).file(
                "slow_weights.safetensors"
            ),
            calibration=manifests(signals),
            signals=[folder.file("records.parquet") for folder in signals],
            policies=[
                LAYOUT.policy(fast_weights=fast_weights, policy=policy).manifest
                for policy in policies_on(GRID, fast_weights, control)
            ],
        output:
            records=[folder.file("records.parquet") for folder in runs],
            manifests=manifests(runs),
        log:
            f"{RESULTS}/logs/arms/{{corpus}}/{{model}}/{fast_weights}/seed-{{seed}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/arms/{{corpus}}/{{model}}/{fast_weights}/seed-{{seed}}.tsv"
        wildcard_constraints:
            corpus=one_of(GRID.control_corpora if control else GRID.eval_corpora),
        threads: cores(stage, fast_weights.kind)
        resources:
            **resources(stage, fast_weights.kind),
        params:
            **params("arms", fast_weights=str(fast_weights)),
        script:
            "../workflow_scripts/stage.py"


# The losses of every sequence of actions, for exact references.
for fast_weights in EXPERIMENT.sequences.all_fast_weights:

    rule:
        name:
            rule_name("sequences", fast_weights)
        input:
            stale(
                "sequences",
                LAYOUT.sequences(fast_weights=fast_weights),
                fast_weights=str(fast_weights),
            ),
            model=LAYOUT.model().manifest,
            chunks=LAYOUT.chunks().manifest,
            hidden=LAYOUT.hidden(context=fast_weights.context).manifest,
            training=LAYOUT.training(fast_weights=fast_weights).manifest,
            weights=LAYOUT.training(fast_weights=fast_weights).file(
                "slow_weights.safetensors"
            ),
        output:
            losses=LAYOUT.sequences(fast_weights=fast_weights).file("sequences.parquet"),
            manifest=LAYOUT.sequences(fast_weights=fast_weights).manifest,
        log:
            f"{RESULTS}/logs/sequences/{{corpus}}/{{model}}/{fast_weights}/seed-{{seed}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/sequences/{{corpus}}/{{model}}/{fast_weights}/seed-{{seed}}.tsv"
        wildcard_constraints:
            corpus=one_of(GRID.eval_corpora),
        threads: cores("sequences", fast_weights.kind)
        resources:
            **resources("sequences", fast_weights.kind),
        params:
            **params("sequences", fast_weights=str(fast_weights)),
        script:
            "../workflow_scripts/stage.py"
