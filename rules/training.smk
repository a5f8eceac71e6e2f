# Slow weights: one training for each model, kind of fast weights and seed; checkpointed outside of the outputs.


rule train:
    input:
        model=LAYOUT.model(),
        chunks=LAYOUT.chunks(corpus=GRID.train_corpus),
        hidden=LAYOUT.hidden(corpus=GRID.train_corpus, context=0),
    output:
        manifest=LAYOUT.training(),
        weights=LAYOUT.training().replace("manifest.json", "slow_weights.safetensors"),
        log=LAYOUT.training().replace("manifest.json", "log.jsonl"),
    log:
        f"{RESULTS}/logs/train/{{model}}/{{fast_weights}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{model}}/{{fast_weights}}/seed-{{seed}}.tsv"
    wildcard_constraints:
        fast_weights="|".join(CONFIG["fast_weights"]),
    threads: all_cores
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
        fast_weights=lambda wildcards: CONFIG["fast_weights"][wildcards.fast_weights],
        training=CONFIG["training"],
        checkpoints=LAYOUT.checkpoints,
    script:
        "../workflow_scripts/train.py"
