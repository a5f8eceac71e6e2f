# Slow weights: one training for each model, kind of fast weights and seed; checkpointed outside of the outputs.


rule train:
    input:
        model=LAYOUT.model(),
        chunks=LAYOUT.chunks(corpus=GRID.train_corpus),
        hidden=lambda wildcards: LAYOUT.hidden(
            wildcards.model, GRID.train_corpus, context_under(wildcards.fast_weights)
        ),
    output:
        manifest=LAYOUT.training(),
        weights=LAYOUT.training().replace("manifest.json", "slow_weights.safetensors"),
        log=LAYOUT.training().replace("manifest.json", "log.jsonl"),
    log:
        f"{RESULTS}/logs/train/{{model}}/{{fast_weights}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{model}}/{{fast_weights}}/seed-{{seed}}.tsv"
    threads: half_the_cores
    resources:
        mem_mb=lambda wildcards: 4000 + state_mb(GRID.train_corpus),
        runtime=lambda wildcards: minutes(
            chunk_count(GRID.train_corpus) * EXPERIMENT.training.epochs * 2
        ),
        gpu=accelerator("gpu"),
        tpu=accelerator("tpu"),
    params:
        code=code("train"),
        model=lambda wildcards: CONFIG["models"][wildcards.model],
        settings=lambda wildcards: settings_of(wildcards.fast_weights),
        training=CONFIG["training"],
        checkpoints=LAYOUT.checkpoints,
    script:
        "../workflow_scripts/train.py"
