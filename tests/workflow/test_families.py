"""The default methods on backbones of other families: another configuration, and nothing else."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from ponderttt.settings.experiment import load
from study import ROOT, Study, write_model
from tiny_families import TINY

FAMILIES = ("gemma3", "gpt2")
GRID = load(ROOT / "config.yaml").grid
#: What depends on the family most: memory reads final states, suffix adaptation runs the blocks themselves.
FAST_WEIGHTS = ("suffix", "memory+full")


@pytest.mark.slow
def test_the_default_methods_run_on_other_families_by_configuration_alone(tmp_path: Path) -> None:
    study = Study.create(tmp_path)
    for family in FAMILIES:
        write_model(study.folder / family, shape=TINY[family])
    study.configure(
        models={
            family: {"family": family, "source": {"kind": "path", "path": family, "accept_terms": True}}
            for family in FAMILIES
        },
        grid__models=[*FAMILIES],
        grid__fast_weights=[*FAST_WEIGHTS],
        grid__methods=[*GRID.methods],
        grid__contexts=[*GRID.contexts],
        # Learned positions cannot slide.
        context__at_limit="reread_half",
        grid__seeds=[0],
    )
    ran = study.run()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    with (study.folder / "results/paper_table.csv").open() as file:
        rows = list(csv.DictReader(file))
    arms = {
        (kind, method)
        for kind in FAST_WEIGHTS
        for method in GRID.methods
        if method not in ("in_chunk", "transductive")
    }
    for family in FAMILIES:
        own = [row for row in rows if row["model"] == family]
        assert arms <= {(row["fast_weights"], row["method"]) for row in own}
        assert all(math.isfinite(float(row["loss"])) for row in own)
