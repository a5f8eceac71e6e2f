"""The command line answers bad input with one line and a non-zero exit, and never with a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "config.yaml"


@pytest.fixture
def code(tmp_path) -> Path:
    """A file to score."""
    path = tmp_path / "a.py"
    path.write_text("x = 1\n" * 100)
    return path


def one_line(result: tuple[int, str, str]) -> str:
    """Return the one line of an error."""
    status, out, err = result
    assert status != 0
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("ponderttt")
    return err


@pytest.mark.parametrize("command", [(), ("score",), ("status",), ("doctor",)])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_says_what_a_command_does(run, command, option):
    status, out, err = run(*command, option)
    assert (status, err) == (0, "")
    assert out.startswith("Usage: ")
    assert out.count("\n") > 3


def test_help_names_every_option_of_score(run):
    _, out, _ = run("score", "--help")
    for option in (
        "--config",
        "--model",
        "--fast-weights",
        "--policy",
        "--budget",
        "--seed",
        "--context",
        "--json",
    ):
        assert option in out


def test_score_reads_with_the_model_of_the_configuration(run, code, tmp_path):
    """It does not use the model of the default study if the configuration names another."""
    study = yaml.safe_load(Path(STUDY).read_text())
    source = {"kind": "path", "path": str(tmp_path / "own")}
    study["models"] = {"own": {"family": "llama", "source": source}}
    study["grid"]["models"] = ["own"]
    study["data_dir"] = str(tmp_path / "data")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(study))
    _, _, err = run("score", code, "--config", str(tmp_path / "own.yaml"))
    assert "fetching and converting own" in err
    assert f"{tmp_path / 'own'}: no such model" in err


def test_version_is_the_package_version(run):
    from ponderttt import __version__

    assert __version__ in run("--version")[1]


def test_no_command_shows_the_help_and_fails(run):
    status, _, err = run()
    assert status == 2
    assert "score" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("scor",), "No such command 'scor'"),
        (("score",), "Missing argument 'PATHS...'"),
        (("score", "x", "--policy", "update_3"), "'update_3' is neither one of"),
        (("score", "x", "--fast-weights", "lorra"), "'lorra' is not one of"),
        (("score", "x", "--context", "two"), "'--context': unknown context 'two'; use alone, full"),
        (("score", "x", "--modle", "y"), "No such option '--modle'"),
        (("score", "x", "--context", "window_0"), "'--context': unknown context 'window_0'"),
        (("score", "x", "--seed", "-1"), "'--seed': -1 is not in the range 0<=x<=4294967295"),
        (("complete", "x", "--seed", "4294967296"), "'--seed': 4294967296 is not in the range"),
        (
            ("complete", "x", "--draw-seed", "99999999999999999999"),
            "'--draw-seed': 99999999999999999999 is not",
        ),
        (("plan", "--model", "gemma3-1b", "--batch", "0"), "'--batch': 0 is not in the range 1<=x<=1000000"),
        (("plan", "--model", "gemma3-1b", "--batch", "-2"), "'--batch': -2 is not in the range"),
        (("plan", "--model", "gemma3-1b", "--batch", "9" * 30), "is not in the range 1<=x<=1000000"),
        (("plan", "--model", "gemma3-1b", "--chunk-size", "0"), "'--chunk-size': 0 is not in the range x>=1"),
        (
            ("plan", "--model", "gemma3-1b", "--context-chunks", "-1"),
            "'--context-chunks': -1 is not in the range",
        ),
        (
            ("plan", "--model", "gemma3-1b", "--memory-gib", "-1"),
            "'--memory-gib': -1.0 is not in the range x>0",
        ),
    ],
)
def test_a_wrong_command_option_or_value_is_one_line(run, arguments, says):
    line = one_line(run(*arguments))
    assert says in line
    assert "--help)" in line


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--top-k", "3000000000"), "top_k must be 0 (all tokens) or from 1 to 2147483647, got 3000000000"),
        (("--temperature", "nan"), "temperature must be 0 (greedy) or from 1e-06 to 1e+06, got nan"),
        (("--top-p", "nan"), "top_p must be greater than 0 and at most 1, got nan"),
        (
            ("--max-tokens", "9" * 30),
            "max_tokens must be from 1 to 1000000, got 999999999999999999999999999999",
        ),
    ],
)
def test_a_sampling_setting_out_of_range_is_one_line(run, code, options, says):
    assert says in one_line(run("complete", code, "--config", STUDY, *options))


def test_an_update_without_fast_weights_is_one_line(run, code):
    line = one_line(run("score", code, "--fast-weights", "none", "--policy", "update_1"))
    assert line == (
        "ponderttt: --fast-weights none has nothing to update; use --policy skip instead of update_1\n"
    )


def test_a_budget_for_a_policy_without_one_is_one_line(run, code):
    line = one_line(run("score", code, "--policy", "update_2", "--budget", "4"))
    assert line.startswith(
        "ponderttt: --policy update_2 has no budget; leave --budget out, or choose one of random,"
    )


def test_a_budget_that_no_actions_have_is_one_line(run, code):
    line = one_line(run("score", code, "--config", STUDY, "--policy", "random", "--budget", "13"))
    assert "13" in line
    assert "between 1 and 12" in line


@pytest.mark.parametrize("budget", ["nan", "inf", "-1", "0"])
def test_a_budget_that_is_not_a_finite_cost_is_one_line(run, code, budget):
    line = one_line(run("score", code, "--config", STUDY, "--policy", "random", "--budget", budget))
    assert "between 1 and 12" in line


def test_a_rule_without_its_calibration_is_one_line(run, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = one_line(run("score", code, "--config", STUDY, "--policy", "entropy"))
    assert line.startswith(
        "ponderttt: --policy entropy: no calibration in results/calibration/smollm2-135m/memory+full/seed-0;"
    )
    assert line.endswith(
        f"results/calibration/smollm2-135m/memory+full/seed-0/manifest.json --configfile {STUDY}\n"
    )


@pytest.fixture
def policy(tmp_path):
    """A policy that was trained for a memory of another model."""
    from ponderttt.names import MethodName
    from ponderttt.policies.trained import save_policy
    from tiny_policies import learned_policies

    facts = {"fast_weights": "memory", "budget": {"mean": 3.5}, "model_digest": "m", "module_digest": "w"}
    save_policy(learned_policies()[MethodName("ppo")], tmp_path / "policy", facts, [])
    return str(tmp_path / "policy")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ("--fast-weights", "lora"),
            "trained for memory, not for lora+full; use --fast-weights memory --context alone",
        ),
        (
            ("--budget", "5", "--context", "alone"),
            "trained for a budget of 3.5; leave --budget out, or train one for 5",
        ),
    ],
)
def test_a_policy_that_was_trained_for_something_else_is_one_line(run, code, policy, options, says):
    line = one_line(run("score", code, "--config", STUDY, "--policy", policy, *options))
    assert says in line


def test_a_folder_without_a_policy_is_one_line(run, code, tmp_path):
    line = one_line(run("score", code, "--config", STUDY, "--policy", str(tmp_path)))
    assert line.startswith(f"ponderttt: --policy {tmp_path}: no trained policy in this folder;")


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (
            {"gate_score": 2.5, "gate_rank": 0.64, "gate_cuts": (0.45, 0.8, 1.0)},
            "  (entropy 2.500, rank 0.64; UPDATE_1 from 0.45, UPDATE_2 from 0.80)",
        ),
        ({"gate_rank": 0.1, "gate_cuts": (0.5, 0.5, 0.5)}, "  (drew 0.10; UPDATE_4 from 0.50)"),
        ({"gate_rank": 0.1, "gate_cuts": (1.0, 1.0, 1.0)}, "  (drew 0.10; nothing left to spend)"),
        ({"gate_score": 0.25}, "  (entropy 0.250)"),
        ({}, ""),
    ],
)
def test_a_decision_is_shown_with_its_reason(step, reason):
    from ponderttt.actions import Action
    from ponderttt.cli.score import why
    from ponderttt.records.step import Step

    blank = dict.fromkeys(Step._fields) | {"action": Action.SKIP}
    assert why(Step(**(blank | step)), "entropy") == reason


def test_an_unknown_model_is_one_line_that_names_the_nearest(run, code):
    line = one_line(run("score", code, "--config", STUDY, "--model", "smollm2-136m"))
    assert "smollm2-136m" in line
    assert "smollm2-135m" in line


@pytest.mark.parametrize("command", [("score", "a.py"), ("status",)])
def test_a_missing_configuration_is_one_line(run, command):
    line = one_line(run(*command, "--config", "none.yaml"))
    assert line == "ponderttt: none.yaml: no such configuration file\n"


def test_no_command_line_error_has_a_traceback(code):
    """The installed command is started as a process."""
    command = [Path(sys.executable).parent / "ponderttt", "score", code]
    command += ["--fast-weights", "none", "--policy", "update_1"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.startswith("ponderttt: --fast-weights none")
    assert ran.stderr.count("\n") == 1
