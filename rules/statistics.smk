# What readers look at: the table, its guide, the figures, the effective configuration.

RUN_MANIFESTS = [run.folder(LAYOUT).manifest for run in RUNS]
RUN_RECORDS = [run.folder(LAYOUT).file("records.parquet") for run in RUNS]
TRAINING_LOGS = [
    LAYOUT.training(model, kind, seed).file("log.jsonl")
    for model in GRID.models
    for kind in GRID.fast_weights
    for seed in GRID.seeds
]

POLICY_LOGS = [
    LAYOUT.policy(model, fast_weights, policy, seed).file("log.jsonl")
    for model in GRID.models
    for fast_weights in GRID.all_fast_weights
    for policy in policies_on(GRID, fast_weights, control=False)
    if policy.base == "ppo"
    for seed in GRID.seeds
]


rule table:
    input:
        manifests=RUN_MANIFESTS,
        records=RUN_RECORDS,
        models=[LAYOUT.model(model).manifest for model in GRID.models],
    output:
        table=report(
            f"{RESULTS}/paper_table.csv",
            caption="../report/paper_table.rst",
            category="Table",
        ),
        seeds=report(
            f"{RESULTS}/seeds.csv", caption="../report/seeds.rst", category="Table"
        ),
        frontier=report(
            f"{RESULTS}/frontier.csv",
            caption="../report/frontier_csv.rst",
            category="Table",
        ),
        signals=report(
            f"{RESULTS}/signals.csv",
            caption="../report/signals_csv.rst",
            category="Table",
        ),
        guide=report(
            f"{RESULTS}/README.md", caption="../report/reading.rst", category="Table"
        ),
        manifest=f"{RESULTS}/manifest.json",
    log:
        f"{RESULTS}/logs/table.log",
    benchmark:
        f"{RESULTS}/benchmarks/table.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=minutes(60),
    params:
        code=code("table"),
        records_code=digests.records_code(),
        statistics=CONFIG["statistics"],
        control_corpora={
            name: EXPERIMENT.corpora[name].kind for name in GRID.control_corpora
        },
    script:
        "../workflow_scripts/table.py"


# What every corpus kept, and what it dropped for which reason.
rule drops:
    input:
        shards=[
            LAYOUT.shards(corpus).manifest
            for corpus in (GRID.train_corpus, *GRID.eval_corpora)
        ],
    output:
        report(
            f"{RESULTS}/drops.csv", caption="../report/drops_csv.rst", category="Data"
        ),
    log:
        f"{RESULTS}/logs/drops.log",
    benchmark:
        f"{RESULTS}/benchmarks/drops.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=minutes(60),
    params:
        code=code("drops"),
    script:
        "../workflow_scripts/drops.py"


rule figures:
    input:
        table=f"{RESULTS}/paper_table.csv",
        seeds=f"{RESULTS}/seeds.csv",
        frontier=f"{RESULTS}/frontier.csv",
        signals=f"{RESULTS}/signals.csv",
        manifest=f"{RESULTS}/manifest.json",
        manifests=RUN_MANIFESTS,
        records=RUN_RECORDS,
        logs=TRAINING_LOGS,
        policies=POLICY_LOGS,
    output:
        **{
            name: [
                report(paths[0], caption=f"../report/{name}.rst", category="Figures"),
                *paths[1:],
            ]
            for name, paths in FIGURES.items()
        },
    log:
        f"{RESULTS}/logs/figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/figures.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=minutes(60),
    params:
        code=code("figures"),
        names=list(FIGURES),
        records_code=digests.records_code(),
        statistics=CONFIG["statistics"],
    script:
        "../workflow_scripts/figures.py"


rule effective_config:
    output:
        f"{RESULTS}/config.yaml",
    log:
        f"{RESULTS}/logs/effective_config.log",
    params:
        code=code("effective"),
        config=CONFIG,
    script:
        "../workflow_scripts/effective.py"
