"""A policy that was trained on one backbone runs on another: its network as it is, the scale of features its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ponderttt.policies.trained import open_policy
from study import CONFIG, Study, write_model

POLICY = "results/policies/{}/lora/{}/seed-0"


@pytest.fixture(scope="module")
def two_backbones(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study.create(tmp_path_factory.mktemp("two"))
    write_model(study.folder / "model-2", seed=1)
    study.configure(
        models__other={"family": "llama", "source": {"kind": "path", "path": "model-2"}},
        grid__models=["tiny", "other"],
        grid__methods=["skip", "regression", "regression-from_tiny"],
        grid__seeds=[0],
        learned={"sequences": 1, "variants": {"from_tiny": {"taken_from": "tiny", "sequences": 1}}},
    )
    ran = study.run()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return study


def opened(study: Study, model: str, policy: str) -> tuple[dict[str, np.ndarray], tuple[float, ...]]:
    trained, _ = open_policy(study.folder / POLICY.format(model, policy), "")
    arrays = {**trained.network._asdict(), "mean": trained.normaliser.mean, "scale": trained.normaliser.scale}
    return {name: np.asarray(value) for name, value in arrays.items()}, trained.calibration


@pytest.mark.slow
def test_on_its_own_backbone_a_policy_is_taken_over_to_the_bit(two_backbones: Study) -> None:
    own, own_scores = opened(two_backbones, "tiny", "regression")
    taken, scores = opened(two_backbones, "tiny", "regression-from_tiny")
    assert all((own[name] == taken[name]).all() for name in own)
    assert own_scores == scores


@pytest.mark.slow
def test_on_another_backbone_the_network_is_the_same_and_the_scale_its_own(two_backbones: Study) -> None:
    source, scores = opened(two_backbones, "tiny", "regression")
    taken, its_scores = opened(two_backbones, "other", "regression-from_tiny")
    own, _ = opened(two_backbones, "other", "regression")
    for name in ("coefficients", "intercept"):
        assert (taken[name] == source[name]).all()
    assert (taken["coefficients"] != own["coefficients"]).any()
    for name in ("mean", "scale"):
        assert (taken[name] == own[name]).all() and (taken[name] != source[name]).any()
    assert scores != its_scores


@pytest.mark.slow
def test_it_is_a_row_of_the_table_on_both(two_backbones: Study) -> None:
    table = (two_backbones.folder / "results/paper_table.csv").read_text().splitlines()
    assert sum("regression-from_tiny" in line for line in table) == 2


@pytest.mark.parametrize(
    ("learned", "said"),
    [
        ({"variants": {"x": {"taken_from": "big"}}}, "learned.variants.x.taken_from: unknown 'big'"),
        ({"taken_from": "tiny"}, "learned.taken_from is tiny: set it in one of learned.variants"),
    ],
)
def test_a_backbone_that_is_not_in_the_grid_is_named(
    learned: dict[str, object], said: str, tmp_path: Path
) -> None:
    from ponderttt.errors import ConfigError
    from ponderttt.settings.experiment import Experiment
    from ponderttt.settings.mapping import from_mapping

    with pytest.raises(ConfigError) as error:
        from_mapping(Experiment, {**CONFIG, "learned": learned})
    assert said in str(error.value)
