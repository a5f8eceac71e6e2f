"""Losses and predictions that are not numbers end a command with the line that the workflow prints too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from ponderttt.errors import PonderTTTError
from ponderttt.models.safetensors_file import BLOCKS_SHARD
from ponderttt.records.record import Record, write_records
from study import CONFIG, write_model

FROZEN = "the frozen loss of chunk 0 of {} is nan; check the model's weights"
PREDICTION = "the prediction of the next token is not finite; check the model's weights"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose model has one weight that is not a number."""
    folder = tmp_path_factory.mktemp("broken")
    write_model(folder / "model")
    file = folder / "model" / BLOCKS_SHARD
    arrays = {name: array.copy() for name, array in load_file(file).items()}
    arrays["model.norm.weight"][0] = np.nan
    save_file(arrays, file)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "long.py").write_text("def add(a, b):\n    return a + b\n" * 5)
    (folder / "short.py").write_text("x = 1\n")
    return folder


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("score", "long.py", "--json"), FROZEN),
        (("score", "long.py", "--fast-weights", "none"), FROZEN),
        (("complete", "long.py"), FROZEN),
        (("complete", "short.py"), PREDICTION),
        (("complete", "short.py", "--fast-weights", "none"), PREDICTION),
        (("complete", "short.py", "--fast-weights", "none", "--temperature", 1), PREDICTION),
    ],
)
def test_a_model_that_computes_nan_is_one_line(
    arguments: tuple[object, ...],
    says: str,
    broken: Path,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(broken)
    status, out, err = run(*arguments, "--model", "tiny")
    assert status == 1 and out == ""
    assert err.splitlines()[-1].startswith(f"ponderttt: {says.format(arguments[1])}")
    assert "Traceback" not in err


def test_the_workflow_says_the_same(tmp_path: Path) -> None:
    names = dict.fromkeys(
        ("model", "fast_weights", "method", "protocol", "corpus", "language", "action"), "a"
    )
    numbers = dict.fromkeys(Record.__dataclass_fields__.keys() - names.keys(), 1)
    record = Record(**{**numbers, **names, "chunk_index": 0, "stream_id": "s", "loss_frozen": float("nan")})
    with pytest.raises(PonderTTTError) as caught:
        write_records(tmp_path, [record], {})
    assert str(caught.value) == f"{tmp_path}: {FROZEN.format('s')}"
