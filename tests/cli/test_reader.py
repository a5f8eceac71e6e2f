"""A folder that was made for something else is refused, with the command that rebuilds it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from study import CONFIG, write_model

SCORE = ("score", "prompt.py", "--fast-weights", "none")


def configured(name: str, **source: object) -> None:
    """Write a configuration whose model has another source."""
    model = CONFIG["models"]["tiny"]
    models = {"tiny": {**model, "source": {**model["source"], **source}}}
    Path(name).write_text(yaml.safe_dump({**CONFIG, "models": models}))


def test_a_model_that_was_converted_from_another_source_is_refused(
    inside: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    write_model(inside / "model2", seed=1)
    configured("two.yaml", path="model2")
    configured("gone.yaml", path="nowhere.gguf")
    configured("accepted.yaml", accept_terms=True)
    status, out, _ = run(*SCORE)
    assert status == 0
    for name, path in (("two.yaml", "model2"), ("gone.yaml", "nowhere.gguf")):
        refused, nothing, err = run(*SCORE, "--config", name)
        assert (refused, nothing) == (1, "")
        assert err.startswith(
            f"ponderttt: data/models/tiny: made with source.path 'model', but '{path}' is configured."
        )
        assert err.endswith(f"snakemake --force data/models/tiny/manifest.json --configfile {name}\n")
    assert losses(run(*SCORE, "--config", "accepted.yaml")[1]) == losses(out)
    shutil.rmtree("data")
    _, other, _ = run(*SCORE, "--config", "two.yaml")
    assert losses(other) != losses(out)
    shutil.rmtree("data")


def losses(table: str) -> list[str]:
    """The losses of a table of chunks."""
    return [line.split()[2] for line in table.splitlines()[1:]]


@pytest.mark.parametrize("file", ["prompt.py", "slow_weights.safetensors"])
def test_a_file_that_holds_no_slow_weights_is_refused(
    inside: Path, run: Callable[..., tuple[int, str, str]], file: str
) -> None:
    Path("slow_weights.safetensors").write_bytes(b"not weights")
    status, out, err = run("score", "prompt.py", "--slow-weights", file)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"ponderttt: {file}: damaged")
    assert err.endswith("leave --slow-weights out\n")
