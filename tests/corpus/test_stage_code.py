"""An edited module reruns the stages of a dataset that compute with it, and no others."""

from __future__ import annotations

import pytest

from ponderttt.files.code import stage_modules
from ponderttt.workflow.digests import entry_modules

STAGES = {
    "select": {"rows", "tables", "schemas", "selection", "candidates", "buckets"},
    "contents": {"contents", "fetched", "segments", "signatures", "decontamination"},
    "merge": {"merge", "chosen", "duplicates", "signatures", "training"},
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_of_a_dataset_depends_on_what_it_computes_with(stage: str) -> None:
    modules = set(stage_modules(*entry_modules(stage)))
    own = {name.removeprefix("ponderttt.corpus.hub.") for name in modules if ".hub." in name}
    assert STAGES[stage] <= own
    others = set.union(*STAGES.values()) - STAGES[stage]
    # One module writes and reads buckets, and defines their columns.
    shared = {"selection", "candidates", "buckets"} if stage == "contents" else set()
    assert not own & (others - shared)
    # Nor on models, policies, their settings, or registries of packages.
    rest = {name.removeprefix("ponderttt.") for name in modules}
    assert not rest & {
        "settings.experiment",
        "workflow.layout",
        "settings.learning",
        "features.table",
        "files.wheels",
        "corpus.debian",
    }
