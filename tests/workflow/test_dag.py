"""Change X, and exactly Y runs again."""

import json
import re
import shutil

import pytest

from edits import Edit
from study import CONFIG, Study

REPORTING = {"table": 1, "figures": 1}
FROM_TRAINING = {"train": 2, "calibrate": 2, "policy": 2, "arms_lora": 2, **REPORTING}
FROM_SHARDS = {"shards": 2, "drops": 1, "chunks": 2, "hidden": 2, "plain": 1, **FROM_TRAINING}
CODE = "\n_LINE_FOR_A_TEST = 1\n"


def test_a_finished_study_has_nothing_to_do(study: Study) -> None:
    assert study.plan() == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"grid__seeds": [0, 1, 7]},
            {"train": 1, "calibrate": 1, "policy": 1, "arms_lora": 1, **REPORTING},
            id="seed added",
        ),
        pytest.param({"grid__seeds": [0]}, REPORTING, id="seed removed", marks=pytest.mark.slow),
        pytest.param({"statistics__bootstrap_samples": 200}, REPORTING, id="bootstrap samples"),
        pytest.param({"training__epochs": 2}, FROM_TRAINING, id="epochs", marks=pytest.mark.slow),
        pytest.param(
            {"grid__budget": 4.0},
            {"policy": 2, "arms_lora": 2, **REPORTING},
            id="budget",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"learned": {"regression": {"penalties": [10.0]}}},
            {"policy": 2, "arms_lora": 2, **REPORTING},
            id="the setting of a learned policy",
        ),
        pytest.param(
            {"learned": {"ppo": {"iterations": 7}}},
            {},
            id="the setting of a policy that is not in the grid",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"rules__ema_step": 0.2},
            {"arms_lora": 2, **REPORTING},
            id="a rule's setting",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"sequences__fast_weights": ["lora"]},
            {"sequences_lora": 2, **REPORTING},
            id="exact references",
        ),
        pytest.param(
            {"grid__fast_weights": ["lora", "memory+full"]},
            {
                "hidden": 2,
                "plain": 1,
                "train": 2,
                "calibrate": 2,
                "policy": 2,
                "arms_memory_full": 2,
                **REPORTING,
            },
            id="fast weights on top of a context",
        ),
        pytest.param(
            {
                "grid__fast_weights": ["lora", "lora-narrow"],
                "fast_weights__variants": {"narrow": {"lora": {"rank": 2}}},
            },
            {"train": 2, "calibrate": 2, "policy": 2, "arms_lora_narrow": 2, **REPORTING},
            id="a variant of fast weights",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "corpora__noise": {
                    **{"kind": "random_tokens", "language": "Python", "split": "control"},
                    **{"source": "test", "max_streams": 2, "chunks_per_stream": 2},
                },
                "grid__control_corpora": ["noise"],
            },
            {"control_chunks": 1, "hidden": 1, "plain": 1, "controls_lora": 1, **REPORTING},
            id="a control corpus",
        ),
        pytest.param(
            {
                "corpora__blend": {
                    **{"kind": "mixed", "language": "Python", "split": "heldout", "segment_chunks": 2},
                    **{"parts": {"code": ["test"]}, "max_streams": 1, "chunks_per_stream": 4},
                },
                "grid__eval_corpora": ["test", "blend"],
            },
            {"mixed_chunks": 1, "hidden": 1, "plain": 1, "arms_lora": 2, **REPORTING},
            id="a mixed corpus",
        ),
        pytest.param(
            {
                "corpora__decide": {**CONFIG["corpora"]["learn"], "path": "sources/decide"},
                "grid__policy_corpus": "decide",
            },
            # Held-out files are compared with those of both training corpora.
            {
                **{
                    "shards": 2,
                    "chunks": 2,
                    "hidden": 2,
                    "plain": 1,
                    "calibrate": 2,
                    "policy": 2,
                    "arms_lora": 2,
                },
                **{"drops": 1, **REPORTING},
            },
            id="a corpus of policies",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "grid__fast_weights": ["lora", "suffix"],
            },
            # States at the split layer were not kept.
            {
                "hidden": 2,
                "plain": 1,
                "train": 4,
                "calibrate": 4,
                "policy": 4,
                "arms_lora": 2,
                "arms_suffix": 2,
                **REPORTING,
            },
            id="suffix adaptation",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"grid__contexts": ["alone", "full"]},
            {"hidden": 1, "plain": 1, **REPORTING},
            id="context arm",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_changed_setting_runs_what_uses_it(
    study: Study, changes: dict[str, object], expected: dict[str, int]
) -> None:
    study.configure(**changes)
    assert study.plan() == {**expected, "effective_config": 1}


def test_a_mixed_corpus_is_made_of_the_chunks_of_its_parts(copied_study: Study) -> None:
    blend = {
        **{"kind": "mixed", "language": "Python", "split": "heldout", "segment_chunks": 2, "max_streams": 2},
        **{"parts": {"one": ["test"], "another": ["test"]}, "chunks_per_stream": 4},
    }
    copied_study.configure(corpora__blend=blend, grid__eval_corpora=["blend"])
    ran = copied_study.run("data/chunks/tiny/blend/manifest.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    manifest = json.loads((copied_study.folder / "data/chunks/tiny/blend/manifest.json").read_text())
    segments = manifest["facts"]["segments"]
    assert [[s["chunk"] for s in stream] for stream in segments.values()] == [[0, 2], [0, 2]]
    assert len({s["source"] for stream in segments.values() for s in stream}) == 4


def test_spelling_out_a_default_runs_nothing(study: Study) -> None:
    study.configure(grid__budget=3.0, cache="auto", data_dir="data")
    assert study.plan() == {}


def test_data_of_another_study_are_rebuilt_however_they_are_spelled(study: Study) -> None:
    target = "elsewhere/runs/test/tiny/none/plain/seed-0/records.parquet"
    for spelling in ("./data", str(study.folder / "data")):
        study.configure("other.yaml", data_dir=spelling, results_dir="elsewhere")
        assert study.plan(target, "--configfile", "other.yaml") == {"plain": 1}
        study.configure("other.yaml", data_dir=spelling, results_dir="elsewhere", chunk_size=32)
        assert study.plan(target, "--configfile", "other.yaml") == {"chunks": 1, "hidden": 1, "plain": 1}


def test_changes_are_seen_where_snakemake_has_no_record(study: Study) -> None:
    records, aside = study.folder / ".snakemake", study.folder / "aside"
    records.rename(aside)
    try:
        assert study.plan() == {}
        study.configure(statistics__bootstrap_samples=200)
        assert study.plan() == {**REPORTING, "effective_config": 1}
        study.configure(models__tiny__source={"kind": "path", "path": "another"})
        downstream = {rule: count for rule, count in FROM_SHARDS.items() if rule not in ("shards", "drops")}
        assert study.plan() == {"model": 1, **downstream, "effective_config": 1}
    finally:
        shutil.rmtree(records, ignore_errors=True)
        aside.rename(records)


def test_a_profile_may_override_all_rules_of_a_stage(study: Study) -> None:
    study.configure(
        grid__fast_weights=["lora", "lora-narrow"],
        fast_weights__variants={"narrow": {"lora": {"rank": 2}}},
    )
    overrides = ("--set-threads", "arms=1", "--set-resources", "arms:mem_mb=1234", "arms_lora:runtime=77")
    ran = study.run("--dry-run", "--forceall", *overrides)
    assert ran.returncode == 0, ran.stderr
    jobs = [
        job for job in re.split(r"^(?=rule )", ran.stdout, flags=re.MULTILINE) if job.startswith("rule arms_")
    ]
    assert len(jobs) == 4
    for job in jobs:
        assert "threads:" not in job
        assert "mem_mb=1234" in job and "runtime=77" in job


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("ponderttt/reporting/numbers/statistics.py", REPORTING),
        ("ponderttt/training/slow_weights.py", FROM_TRAINING),
        pytest.param(
            "ponderttt/training/regression.py",
            {"policy": 2, "arms_lora": 2, **REPORTING},
            marks=pytest.mark.slow,
        ),
        ("ponderttt/corpus/filters.py", FROM_SHARDS),
        pytest.param(
            "ponderttt/workflow/stages/table.py", {"table": 1, "figures": 1}, marks=pytest.mark.slow
        ),
    ],
)
def test_edited_code_runs_its_stage_and_what_follows(
    study: Study, edited: Edit, module: str, expected: dict[str, int]
) -> None:
    edited.append(module, CODE)
    assert study.plan() == expected


def test_a_comment_runs_nothing(study: Study, edited: Edit) -> None:
    for module in (
        "files/manifest.py",
        "models/families/llama.py",
        "corpus/filters.py",
        "loop/stream.py",
        "reporting/numbers/statistics.py",
    ):
        edited.append(f"ponderttt/{module}", "\n# A remark.\n")
    edited.append("workflow_scripts/stage.py", "\n# Another.\n")
    assert study.plan() == {}
