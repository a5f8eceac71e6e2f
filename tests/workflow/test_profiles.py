"""``snakemake --profile NAME results/paper_table.csv -n`` plans the same DAG from the root of a checkout."""

import re
import subprocess
import sys

import pytest
import yaml

from study import ROOT


def plan(*arguments: str) -> str:
    """The table of jobs, whatever was made before."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        *arguments,
        "results/paper_table.csv",
        "-n",
        "--forceall",
        "--quiet",
        "rules",
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout[ran.stdout.index("Job stats:") :]


@pytest.fixture(scope="module")
def default_plan() -> str:
    return plan()


@pytest.mark.parametrize(
    "profile", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("tpu", "gpu")), "slurm"]
)
def test_a_profile_plans_the_same_jobs(profile: str, default_plan: str) -> None:
    assert plan("--profile", profile) == default_plan


def test_no_profile_sets_what_the_default_one_overrides() -> None:
    default = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    for profile in ("tpu", "gpu", "slurm"):
        assert (
            not default.keys() & yaml.safe_load((ROOT / f"profiles/{profile}/config.yaml").read_text()).keys()
        )


def test_retries_are_set_in_profiles_only() -> None:
    for path in (ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")):
        assert "retries" not in path.read_text()


def test_rules_run_scripts_only() -> None:
    for path in (ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")):
        lines = [line.strip() for line in path.read_text().splitlines()]
        assert not {"run:", "shell:"} & set(lines)


def test_every_rule_takes_parameters_in_one_way_and_looks_for_stale_outputs() -> None:
    for path in (ROOT / "rules").glob("*.smk"):
        for rule in re.split(r"^ *(?:rule|checkpoint)\b", path.read_text(), flags=re.MULTILINE)[1:]:
            (params,) = re.findall(r"params:\n(.*?)\n *script:", rule, flags=re.DOTALL)
            assert re.fullmatch(r" *\*\*params\([^\n]*\),", params), params
            # Others are made from folders with stamps.
            assert "stale" in rule or re.match(r" (drops|figures):", rule), rule


def test_the_lock_names_no_index_and_no_torch() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock and "--index" not in lock and "--find-links" not in lock
    assert not any(line.startswith("torch==") for line in lock.splitlines())


@pytest.mark.slow
def test_the_workflow_is_formatted_and_has_no_lint() -> None:
    formatted = [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "rules"]
    for command in (formatted, [sys.executable, ".ci/lint_workflow"]):
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
