# Results for readers: the table, its guide, the figures, the effective configuration.

RUNS = [run.folder(LAYOUT) for run in NEEDS.runs()]
SEQUENCES = NEEDS.sequences()
RECORDS = [folder.file("records.parquet") for folder in RUNS]
FIGURES = {
    name: [f"{RESULTS}/figures/{name}.svg", f"{RESULTS}/figures/{name}.pdf"]
    for name in figure_names(GRID.methods)
}


rule table:
    input:
        stale("table", Folder(RESULTS)),
        manifests=manifests(RUNS),
        records=RECORDS,
        sequences=manifests(SEQUENCES),
        losses=[folder.file("sequences.parquet") for folder in SEQUENCES],
        models=[LAYOUT.model(model).manifest for model in GRID.models],
    output:
        table=report(
            f"{RESULTS}/paper_table.csv",
            caption="../report/paper_table.rst",
            category="Table",
        ),
        confirmatory=report(
            f"{RESULTS}/confirmatory.csv",
            caption="../report/confirmatory_csv.rst",
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
        references=report(
            f"{RESULTS}/references.csv",
            caption="../report/references_csv.rst",
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
    threads: cores("table")
    resources:
        **resources("table"),
    params:
        **params("table"),
    script:
        "../workflow_scripts/stage.py"


# The files that every corpus kept and dropped.
rule drops:
    input:
        shards=[LAYOUT.shards(corpus).manifest for corpus in NEEDS.corpora_of_files()],
    output:
        drops=report(
            f"{RESULTS}/drops.csv", caption="../report/drops_csv.rst", category="Data"
        ),
    log:
        f"{RESULTS}/logs/drops.log",
    benchmark:
        f"{RESULTS}/benchmarks/drops.tsv"
    threads: cores("drops")
    resources:
        **resources("drops"),
    params:
        **params("drops"),
    script:
        "../workflow_scripts/stage.py"


rule figures:
    input:
        table=f"{RESULTS}/paper_table.csv",
        confirmatory=f"{RESULTS}/confirmatory.csv",
        seeds=f"{RESULTS}/seeds.csv",
        frontier=f"{RESULTS}/frontier.csv",
        signals=f"{RESULTS}/signals.csv",
        references=f"{RESULTS}/references.csv",
        manifest=f"{RESULTS}/manifest.json",
        manifests=manifests(RUNS),
        records=RECORDS,
        logs=NEEDS.training_logs(),
        policies=NEEDS.policy_logs(),
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
    threads: cores("figures")
    resources:
        **resources("figures"),
    params:
        **params("figures"),
    script:
        "../workflow_scripts/stage.py"


rule effective_config:
    input:
        stale_config,
    output:
        config=f"{RESULTS}/config.yaml",
    log:
        f"{RESULTS}/logs/effective_config.log",
    resources:
        **resources("effective_config"),
    params:
        **params("effective"),
    script:
        "../workflow_scripts/stage.py"
