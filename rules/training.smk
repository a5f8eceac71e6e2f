# Slow weights: one training for each model, kind of fast weights and seed; checkpointed outside of the outputs.


rule train:
    input:
        model=LAYOUT.model().manifest,
        chunks=LAYOUT.chunks(corpus=GRID.train_corpus).manifest,
        hidden=lambda wildcards: LAYOUT.hidden(
            wildcards.model, GRID.train_corpus, context_under(wildcards.fast_weights)
        ).manifest,
    output:
        manifest=LAYOUT.training().manifest,
        weights=LAYOUT.training().file("slow_weights.safetensors"),
        log=LAYOUT.training().file("log.jsonl"),
    log:
        f"{RESULTS}/logs/train/{{model}}/{{fast_weights}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{model}}/{{fast_weights}}/seed-{{seed}}.tsv"
    # All modules come before policies, so that these find others to go side by side with.
    priority: 2
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
        settings=lambda wildcards: settings_of(wildcards.fast_weights),
        training=CONFIG["training"],
        checkpoints=LAYOUT.checkpoints,
    script:
        "../workflow_scripts/train.py"


# A learned policy of one trained module and seed, from training streams alone.
rule policy:
    input:
        model=LAYOUT.model().manifest,
        chunks=LAYOUT.chunks(corpus=GRID.train_corpus).manifest,
        hidden=lambda wildcards: LAYOUT.hidden(
            wildcards.model, GRID.train_corpus, context_under(wildcards.fast_weights)
        ).manifest,
        training=LAYOUT.training().manifest,
        weights=LAYOUT.training().file("slow_weights.safetensors"),
        calibration=lambda wildcards: (
            [
                LAYOUT.calibration(
                    wildcards.model, wildcards.fast_weights, wildcards.seed
                ).manifest
            ]
            if needs_calibration(wildcards.policy)
            else []
        ),
        taken_from=lambda wildcards: policy_taken(wildcards),
    output:
        manifest=LAYOUT.policy().manifest,
        policy=LAYOUT.policy().file("policy.safetensors"),
        log=LAYOUT.policy().file("log.jsonl"),
    log:
        f"{RESULTS}/logs/policy/{{model}}/{{fast_weights}}/{{policy}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/policy/{{model}}/{{fast_weights}}/{{policy}}/seed-{{seed}}.tsv"
    wildcard_constraints:
        policy=r"[a-z_]+(-\w+)?(@[\d.]+)?",
    threads: half_the_cores
    resources:
        mem_mb=lambda wildcards: (
            3000
            + int(1000 * learned_settings(wildcards.policy)["logits_gb"])
            + state_mb(GRID.train_corpus)
        ),
        runtime=lambda wildcards: minutes(chunk_count(GRID.train_corpus) * 20),
        gpu=accelerator("gpu"),
        tpu=accelerator("tpu"),
    params:
        code=code("policy"),
        model=lambda wildcards: CONFIG["models"][wildcards.model],
        settings=lambda wildcards: settings_of(wildcards.fast_weights),
        budget=GRID.budget,
        budget_unit=GRID.budget_unit,
        rules=lambda wildcards: (
            CONFIG["rules"] if wildcards.policy.startswith("ppo") else {}
        ),
        learned=lambda wildcards: learned_settings(wildcards.policy),
        checkpoints=LAYOUT.checkpoints,
    script:
        "../workflow_scripts/policy.py"
