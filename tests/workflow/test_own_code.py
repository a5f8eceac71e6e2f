"""``ponderttt score`` reads one's own code with what a study has trained, and only with what was made for the same model."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from ponderttt.cli.main import main
from study import CONFIG, Study, write_model

ADAPTER = "results/training/tiny/lora/seed-{}/slow_weights.safetensors"


@pytest.fixture
def score(copied_study: Study, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run ``ponderttt score`` in the finished study; gives the lines of standard output and standard error."""
    monkeypatch.chdir(copied_study.folder)
    Path("own.py").write_text("def own():\n    return 1\n" * 20)

    def run(*arguments: str) -> tuple[list[str], list[str]]:
        words = ["ponderttt", "score", "own.py", "--fast-weights", "lora", *arguments]
        monkeypatch.setattr("sys.argv", words)
        try:
            main()
        except SystemExit as ended:
            assert ended.code == 1
        out, err = capfd.readouterr()
        return out.splitlines(), err.splitlines()

    return run


def test_a_rule_uses_the_adapter_and_the_calibration_of_its_study(score) -> None:
    out, err = score("--policy", "entropy")
    assert err == []
    assert len(out) == 1 + 8
    assert "rank" in out[1]


def test_another_study_here_that_has_them_is_named_with_the_command(score) -> None:
    configured = {**CONFIG, "results_dir": "elsewhere"}
    Path("my other.yaml").write_text(yaml.safe_dump(configured))
    out, (line,) = score("--policy", "entropy", "--config", "my other.yaml")
    assert out == []
    says, _, command = line.partition("; the study config.yaml has one: ")
    assert says == "ponderttt: --policy entropy: no calibration in elsewhere/calibration/tiny/lora/seed-0"
    found, notices = score(*shlex.split(command)[5:])
    assert (len(found), notices) == (9, [])
    out, (notice,) = score("--config", "my other.yaml")
    assert len(out) == 9
    assert "no trained adapter in elsewhere/training/tiny/lora/seed-0; using an untrained lora" in notice


def test_an_adapter_of_another_model_is_refused(score) -> None:
    write_model(Path("model2"), seed=1)
    models = {"tiny": {**CONFIG["models"]["tiny"], "source": {"kind": "path", "path": "model2"}}}
    Path("two.yaml").write_text(yaml.safe_dump({**CONFIG, "models": models, "data_dir": "data2"}))
    for options in ((), ("--slow-weights", ADAPTER.format(0))):
        out, (_, line) = score("--config", "two.yaml", *options)
        shutil.rmtree("data2")
        assert out == []
        assert line.startswith(
            "ponderttt: results/training/tiny/lora/seed-0: made with another model. Rebuild it: "
        )
        assert line.endswith(" --force results/training/tiny/lora/seed-0/manifest.json --configfile two.yaml")


def test_an_adapter_that_was_trained_with_other_settings_is_refused(score) -> None:
    settings = {"lora": {**CONFIG["fast_weights"]["lora"], "inner_rate": 0.02}}
    Path("other.yaml").write_text(yaml.safe_dump({**CONFIG, "fast_weights": settings}))
    out, (line,) = score("--config", "other.yaml")
    assert out == []
    assert "made with settings.inner_rate 0.01, but 0.02 is configured" in line


def test_a_calibration_of_another_adapter_is_refused(score) -> None:
    out, err = score("--slow-weights", ADAPTER.format(1))
    assert (len(out), err) == (9, [])
    out, (line,) = score("--slow-weights", ADAPTER.format(1), "--policy", "entropy")
    assert out == []
    assert line.startswith(
        "ponderttt: results/calibration/tiny/lora/seed-0: made with another trained adapter."
    )
