# Slow weights and learned policies, from training streams alone; their checkpoints are in no rule's outputs.


rule train:
    input:
        stale("train", LAYOUT.training()),
        model=LAYOUT.model().manifest,
        chunks=LAYOUT.chunks(corpus=GRID.train_corpus).manifest,
        hidden=lambda wildcards: LAYOUT.hidden(
            wildcards.model,
            GRID.train_corpus,
            FastWeightsName.parse(wildcards.fast_weights).context,
        ).manifest,
    output:
        manifest=LAYOUT.training().manifest,
        weights=LAYOUT.training().file("slow_weights.safetensors"),
        log=LAYOUT.training().file("log.jsonl"),
    log:
        f"{RESULTS}/logs/train/{{model}}/{{fast_weights}}/seed-{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{model}}/{{fast_weights}}/seed-{{seed}}.tsv"
    # All adapters come before policies, so that two policies can run at a time.
    priority: 2
    threads: cores("train")
    resources:
        **resources(
            "train",
            corpus=GRID.train_corpus,
            repeats=lambda wildcards: EXPERIMENT.training.epochs,
        ),
    params:
        **params("train"),
    script:
        "../workflow_scripts/stage.py"


# A learned policy of one adapter and seed.
rule policy:
    input:
        stale("policy", LAYOUT.policy()),
        model=LAYOUT.model().manifest,
        chunks=LAYOUT.chunks(corpus=GRID.deciding_corpus).manifest,
        hidden=lambda wildcards: LAYOUT.hidden(
            wildcards.model,
            GRID.deciding_corpus,
            FastWeightsName.parse(wildcards.fast_weights).context,
        ).manifest,
        training=LAYOUT.training().manifest,
        weights=LAYOUT.training().file("slow_weights.safetensors"),
        calibration=lambda wildcards: manifests(
            NEEDS.calibration_of_policy(
                wildcards.model,
                wildcards.fast_weights,
                wildcards.policy,
                wildcards.seed,
            )
        ),
        taken_from=lambda wildcards: manifests(
            NEEDS.policy_taken(
                wildcards.fast_weights, wildcards.policy, wildcards.seed
            )
        ),
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
    threads: cores("policy")
    resources:
        **resources(
            "policy",
            corpus=GRID.deciding_corpus,
            logits_gb=lambda wildcards: NEEDS.logits_gb(wildcards.policy),
        ),
    params:
        **params("policy"),
    script:
        "../workflow_scripts/stage.py"
