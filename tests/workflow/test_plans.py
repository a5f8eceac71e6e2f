"""Parameters, inputs and resources of a study's jobs."""

from __future__ import annotations

import importlib
import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from ponderttt.errors import PonderTTTError
from ponderttt.files.folder import Folder
from ponderttt.names import FastWeightsName
from ponderttt.settings.experiment import Experiment
from ponderttt.settings.mapping import as_mapping, from_mapping
from ponderttt.workflow.digests import entry_modules
from ponderttt.workflow.jobs import Job, ModuleFolders, Place, gather
from ponderttt.workflow.plans.needs import Needs
from ponderttt.workflow.plans.parameters import Plan
from ponderttt.workflow.plans.resources import NEEDS, Sizes, need, rule_name, spread, threads
from ponderttt.workflow.plans.room import budget_notes
from study import CONFIG, ROOT

HUB = {
    "path": "snapshot",
    "parts": 2,
    "accept_terms": True,
    "opt_out": "out.txt",
    "decontaminate": ["test.jsonl"],
}
CONTENTS = {"connections": 3, "segment_files": 7, "max_failures": 0.25}
#: Every key that has another value than its default, where some stage could forget it.
STUDY: dict[str, Any] = {
    **CONFIG,
    "corpora": {
        **CONFIG["corpora"],
        "stack": {
            "kind": "stack_v2",
            "language": "Python",
            "split": "train",
            "max_streams": 3,
            "chunks_per_stream": 2,
            "filters": {"min_bytes": 65, "max_line_length": 500},
            "hub": {**HUB, "contents": CONTENTS},
        },
        "blend": {
            **{
                "kind": "mixed",
                "language": "Python",
                "split": "heldout",
                "segment_chunks": 2,
                "span_seed": 5,
            },
            **{"parts": {"code": ["test"], "rows": ["stack"]}, "max_streams": 2, "chunks_per_stream": 4},
        },
        "noise": {
            **{"kind": "random_tokens", "language": "Python", "split": "control"},
            **{"source": "test", "max_streams": 2, "chunks_per_stream": 3},
        },
    },
    "grid": {
        **CONFIG["grid"],
        "fast_weights": ["lora", "lora-wide", "memory+full", "suffix-deep"],
        "methods": ["skip", "update_1", "entropy", "regression", "ppo", "ppo-near"],
        "control_corpora": ["noise"],
        "budget": 4.0,
        "budget_unit": "flops",
        "budget_over": "corpus",
    },
    "fast_weights": {
        "lora": {"rank": 4},
        "memory": {"capacity": 77},
        "variants": {"wide": {"lora": {"rank": 9}}, "deep": {"suffix": {"blocks": 1}}},
    },
    "rules": {"ema_step": 0.3},
    "learned": {
        "sequences": 5,
        "logits_gb": 1.5,
        "regression": {"penalties": [2.0]},
        "ppo": {"iterations": 7},
        "variants": {"near": {"ppo": {"iterations": 8, "warm_start": "entropy"}}},
    },
    "sequences": {"fast_weights": ["lora"], "max_nodes": 99, "beam_width": 3},
    "statistics": {"bootstrap_samples": 99},
    "cache": "off",
}
ADAPTER = {"model": "tiny", "fast_weights": "lora-wide", "seed": "1"}
#: Stage, settings, wildcards of a job.
JOBS: list[tuple[str, str, dict[str, str]]] = [
    ("model", "model", {"model": "tiny"}),
    ("shards", "shards", {"corpus": "learn"}),
    ("select", "select", {"corpus": "stack", "part": "1"}),
    ("contents", "contents", {"corpus": "stack", "bucket": "1"}),
    ("merge", "merge", {"corpus": "stack"}),
    ("chunks", "chunks", {"model": "tiny", "corpus": "test"}),
    ("control_chunks", "control_chunks", {"model": "tiny", "corpus": "noise"}),
    ("mixed_chunks", "mixed_chunks", {"model": "tiny", "corpus": "blend"}),
    ("hidden", "hidden", {"model": "tiny", "corpus": "test", "context": "alone"}),
    ("train", "train", ADAPTER),
    ("arms", "calibrate", ADAPTER),
    ("policy", "policy", {**ADAPTER, "policy": "ppo-near"}),
    ("policy", "policy", {**ADAPTER, "policy": "regression"}),
    ("plain", "plain", {"corpus": "test", "model": "tiny", "method": "full"}),
    ("arms", "arms", {**ADAPTER, "corpus": "test"}),
    ("sequences", "sequences", {**ADAPTER, "corpus": "test"}),
    ("table", "table", {}),
    ("drops", "drops", {}),
    ("figures", "figures", {}),
    ("effective", "effective", {}),
]


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return from_mapping(Experiment, STUDY)


@pytest.fixture(scope="module")
def plan(experiment: Experiment) -> Plan:
    return Plan(experiment)


@pytest.mark.parametrize(("stage", "settings", "wildcards"), JOBS)
def test_a_stage_takes_exactly_the_parameters_of_its_rule(
    stage: str, settings: str, wildcards: dict[str, str], plan: Plan
) -> None:
    """Nothing is filled in by a default, nothing is ignored: what a stage knows, Snakemake compares."""
    given = getattr(plan, settings)(**wildcards)
    module = importlib.import_module(f"ponderttt.workflow.stages.{stage}")
    assert as_mapping(from_mapping(module.Settings, given, stage)) == given == json.loads(json.dumps(given))
    assert f"ponderttt.workflow.stages.{stage}" in entry_modules(stage)


def test_a_parameter_that_is_left_out_is_an_error(plan: Plan) -> None:
    from ponderttt.errors import ConfigError
    from ponderttt.workflow.stages.chunks import Settings

    given = plan.chunks("tiny", "test")
    for key in given:
        with pytest.raises(ConfigError, match=key):
            from_mapping(Settings, {k: v for k, v in given.items() if k != key}, "chunks")


def test_every_stage_has_a_job_here_and_no_defaults() -> None:
    folder = ROOT / "ponderttt/workflow/stages"
    stages = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert stages == {stage for stage, _, _ in JOBS}
    for stage in stages:
        kind = importlib.import_module(f"ponderttt.workflow.stages.{stage}").Settings
        assert all(f.default is MISSING and f.default_factory is MISSING for f in fields(kind)), stage


def test_rules_and_their_script_read_no_other_part_of_the_configuration() -> None:
    script = (ROOT / "workflow_scripts/stage.py").read_text()
    run = (ROOT / "ponderttt/workflow/run.py").read_text()
    for name in ("config", "wildcards", "rule"):
        assert f"snakemake.{name}" not in script + run
    scripts = [path.name for path in (ROOT / "workflow_scripts").iterdir() if path.suffix == ".py"]
    assert scripts == ["stage.py"]


def test_only_the_settings_of_its_kind_and_method_rerun_a_job(plan: Plan) -> None:
    arms = plan.arms(corpus="test", **ADAPTER)
    assert arms["config"]["lora"]["rank"] == 9
    assert arms["config"]["memory"] == as_mapping(from_mapping(Experiment, CONFIG).fast_weights.memory)
    policy = plan.policy(**ADAPTER, policy="regression")
    assert policy["learned"]["regression"]["penalties"] == [2.0]
    assert policy["learned"]["ppo"]["iterations"] != 7
    assert policy["rules"]["ema_step"] != 0.3 and arms["rules"]["ema_step"] == 0.3
    assert plan.policy(**ADAPTER, policy="ppo-near")["learned"]["ppo"]["iterations"] == 8
    assert plan.policy(**ADAPTER, policy="ppo")["rules"]["ema_step"] == 0.3


def test_access_to_a_dataset_is_no_setting_of_its_files(plan: Plan) -> None:
    for settings in (plan.select("stack", "0"), plan.contents("stack", "0"), plan.merge("stack")):
        hub = settings["corpus"]["hub"]
        assert not hub["accept_terms"] and hub["contents"]["connections"] != 3
    kept = plan.contents("stack", "0")["corpus"]["hub"]["contents"]
    assert (kept["segment_files"], kept["max_failures"]) == (7, 0.25)
    access = plan.place("stack")["access"]
    assert access["accept_terms"] and access["contents"]["connections"] == 3
    assert plan.place("test")["access"] == {}
    assert as_mapping(from_mapping(Place, plan.place("stack"), "place")) == plan.place("stack")


def test_a_dataset_is_reached_with_its_access_and_filtered_by_its_settings(plan: Plan) -> None:
    from ponderttt.workflow.access import with_access
    from ponderttt.workflow.stages.contents import Settings

    settings = from_mapping(Settings, plan.contents("stack", "0"), "contents")
    corpus = with_access(settings.corpus, plan.place("stack")["access"])
    assert corpus.hub is not None and corpus.hub.accept_terms
    contents = corpus.hub.contents
    assert (contents.connections, contents.segment_files, contents.max_failures) == (3, 7, 0.25)


@pytest.mark.parametrize("name", ["suffix", "suffix-deep"])
def test_states_at_the_split_layer_are_kept_for_every_name_of_suffix(name: str) -> None:
    grid = {**STUDY["grid"], "fast_weights": ["lora", name]}
    plan = Plan(from_mapping(Experiment, {**STUDY, "grid": grid}))
    assert plan.hidden("tiny", "test", "alone")["keep_split"]
    assert not plan.hidden("tiny", "test", "full")["keep_split"]


def test_inputs_follow_the_settings(experiment: Experiment) -> None:
    needs = Needs(experiment)
    assert needs.training_shards("learn") == []
    assert needs.training_shards("test") == ["data/shards/learn"]
    assert [f.manifest for f in needs.calibration(FastWeightsName("lora"), control=False)] == [
        "results/calibration/{model}/lora/seed-{seed}/manifest.json"
    ]
    assert needs.calibration(FastWeightsName("lora"), control=True) == []
    # One PPO starts as a copy of a rule that ranks the entropy.
    assert needs.calibration_of_policy("tiny", "lora", "ppo", "0") == []
    assert needs.calibration_of_policy("tiny", "lora", "ppo-near", "0") == [
        "results/calibration/tiny/lora/seed-0"
    ]
    assert needs.calibration_of_policy("tiny", "lora", "regression", "0") == []
    assert needs.logits_gb("ppo") == 1.5 and needs.logits_gb("ppo-near") == 3.0
    assert len(needs.training_logs()) == 4 * 2 and len(needs.policy_logs()) == 4 * 2 * 2


def test_with_a_corpus_of_policies_all_training_corpora_are_disjoint_and_policies_see_the_second() -> None:
    corpora = {**CONFIG["corpora"], "decide": {**CONFIG["corpora"]["learn"], "path": "sources/decide"}}
    grid = {**CONFIG["grid"], "policy_corpus": "decide"}
    experiment = from_mapping(Experiment, {**CONFIG, "corpora": corpora, "grid": grid})
    needs = Needs(experiment)
    assert needs.training_shards("learn") == []
    assert needs.training_shards("decide") == ["data/shards/learn"]
    assert needs.training_shards("test") == ["data/shards/learn", "data/shards/decide"]
    assert needs.corpora_of_files() == ["learn", "decide", "test"]
    assert Plan(experiment).calibrate("tiny", "lora", "0")["names"]["corpus"] == "decide"
    assert Plan(from_mapping(Experiment, CONFIG)).calibrate("tiny", "lora", "0")["names"]["corpus"] == "learn"


def test_spans_rebuild_chunks_but_no_files_of_a_corpus() -> None:
    def settings(**changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        corpora = {**CONFIG["corpora"], "test": {**CONFIG["corpora"]["test"], **changes}}
        plan = Plan(from_mapping(Experiment, {**CONFIG, "corpora": corpora}))
        return plan.shards("test"), plan.chunks("tiny", "test")

    shards, chunks = settings()
    assert chunks["span_seed"] == 0
    for changes in ({"span_seed": 3}, {"start": "first"}, {"chunks_per_stream": 2}):
        other_shards, other_chunks = settings(**changes)
        assert other_shards == shards and other_chunks != chunks
    assert settings(start="first")[1]["span_seed"] is None


def test_a_run_that_failed_is_left_out_if_runs_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = Path("results/logs/train/tiny/lora/seed-1.log")
    log.parent.mkdir(parents=True)

    def seeds(allow_missing: bool) -> set[int]:
        statistics = {"allow_missing": allow_missing}
        needs = Needs(from_mapping(Experiment, {**CONFIG, "statistics": statistics}))
        assert {f"seed-{run.seed}" for run in needs.runs() if run.fast_weights != "none"} == {
            Path(path).parent.name for path in needs.training_logs()
        }
        return {run.seed for run in needs.runs() if run.fast_weights != "none"}

    assert seeds(True) == {0, 1}
    log.write_text("ponderttt: the disk is full\n")
    assert seeds(True) == {0}
    assert seeds(False) == {0, 1}
    # An interrupt is no failure.
    log.write_text("ponderttt: interrupted; run the same command again to continue\n")
    assert seeds(True) == {0, 1}


def test_heavy_jobs_have_the_machine_to_themselves_and_fixed_threads_on_a_cluster() -> None:
    assert [threads(need(stage), 16, cluster=False) for stage in ("hidden", "policy", "table")] == [16, 8, 1]
    assert [threads(need(stage), 2, cluster=True) for stage in ("hidden", "policy", "table")] == [8, 4, 1]
    assert need("arms", "suffix") != need("arms", "lora") == need("arms")


def test_memory_and_time_grow_with_the_corpus(experiment: Experiment) -> None:
    sizes = Sizes(experiment)
    assert sizes.chunks("stack") == 3 * 2 and sizes.chunks("test") == 64 * 4
    states = 64 * 4 * 64 * 1024 * 4 // 2**20
    assert sizes.mem_mb(need("arms"), "test") == NEEDS["arms"].mem_mb + states
    assert sizes.mem_mb(need("policy"), "test", logits_gb=1.5) == NEEDS["policy"].mem_mb + states + 1500
    assert sizes.mem_mb(need("table")) == NEEDS["table"].mem_mb
    assert sizes.minutes(need("arms"), "test") == round(4 * 15 * 64 * 4 / 60)
    assert sizes.minutes(need("hidden"), "test", repeats=2) == round(4 * 3 * 2 * 64 * 4 / 60)
    assert sizes.minutes(need("drops")) == 15


def test_an_override_of_a_stage_or_a_kind_reaches_generated_rules() -> None:
    rules = [(s, FastWeightsName.parse(n)) for s in ("arms", "controls") for n in ("lora", "lora-rank_64")]
    rules.append(("arms", FastWeightsName.parse("memory+full")))
    assert rule_name(*rules[1]) == "arms_lora_rank_64"
    found = spread({"arms": 4, "arms_lora": 6, "arms_memory_full": 8, "hidden": 2}, rules)
    assert found == {
        "arms": 4,
        "hidden": 2,
        "arms_lora": 6,
        "arms_lora_rank_64": 6,
        "arms_memory_full": 8,
    }
    merged = spread({"arms": {"mem": 1, "time": 2}, "arms_lora": {"mem": 3}}, rules, lambda a, b: {**a, **b})
    assert merged["arms_lora"] == merged["arms_lora_rank_64"] == {"mem": 3, "time": 2}
    assert merged["arms_memory_full"] == {"mem": 1, "time": 2}


def test_named_files_of_a_rule_become_folders() -> None:
    files = {name: (f"data/{name}/manifest.json",) for name in ("model", "chunks", "hidden", "training")}
    found = gather(ModuleFolders, {**files, "weights": ("elsewhere",), "calibration": ()})
    assert found == ModuleFolders(*(Folder(f"data/{name}") for name in files), None)
    found = gather(ModuleFolders, {**files, "calibration": ("c/manifest.json",)})
    assert found.calibration == "c"
    job = Job((Folder("a"), Folder("b")), {}, {}, Place("", "", "", {}), 1, lambda *_: None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="too many"):
        assert job.folder


def test_a_budget_that_leaves_out_an_action_is_told_before_anything_runs() -> None:
    """Three on four chunks: 8 units for three, of which 7 can be spent: SKIP, UPDATE_1 and UPDATE_2 in six orders."""
    notes = budget_notes(from_mapping(Experiment, CONFIG))
    assert len(notes) == 1
    assert "test: a budget of 3 × SKIP in nominal cost leaves streams of 4 chunks 6 sequences" in notes[0]
    assert "UPDATE_4 in none" in notes[0]


def test_a_budget_that_leaves_nothing_to_decide_is_one_line() -> None:
    short = json.loads(json.dumps(CONFIG))
    short["corpora"]["test"]["chunks_per_stream"] = 2
    short["grid"]["budget"] = 2.0
    with pytest.raises(PonderTTTError, match=r"streams of 2 chunks a single sequence of actions") as error:
        budget_notes(from_mapping(Experiment, short))
    assert "\n" not in str(error.value)
