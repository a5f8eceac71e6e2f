"""The table is complete, its page is printed from it, and its FLOPs are those that are counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import jax
import pytest

from ponderttt.costs import count_flops
from ponderttt.features import table
from ponderttt.features.feature import D, T
from ponderttt.features.similarity import nearest_and_error
from ponderttt.features.table import BASE, FEATURES, FROZEN, NAMES


def test_the_base_set_has_its_six_groups() -> None:
    groups = Counter(feature.group for feature in FEATURES[:BASE])
    assert groups == {
        "confidence": 4,
        "activation": 6,
        "attention": 4,
        "code": 8,
        "history": 4,
        "sequence": 6,
    }


def test_there_are_64_names() -> None:
    assert len(FEATURES) == len(set(NAMES)) == 64


def test_places_are_those_of_the_names() -> None:
    for name in FROZEN:
        assert NAMES[table.index(name)] == FROZEN[table.frozen_index(name)] == name
    assert "loss_ema" in NAMES
    with pytest.raises(KeyError):
        table.frozen_index("loss_ema")


def test_a_definition_is_one_sentence() -> None:
    for feature in FEATURES:
        assert feature.definition.endswith("."), feature.name
        assert len(feature.definition) > 20, feature.name
        assert feature.low < feature.high, feature.name


def test_the_page_is_what_the_table_prints() -> None:
    page = Path(__file__).parents[2] / "docs" / "features.md"
    assert page.read_text() == table.as_markdown(), (
        "run: python -m ponderttt.features.table > docs/features.md"
    )


def test_the_flops_of_the_expensive_features_are_counted() -> None:
    states, mask = jax.ShapeDtypeStruct((T, D), "float32"), jax.ShapeDtypeStruct((T,), "bool")
    counted = count_flops(nearest_and_error, states, mask, states, mask)
    stated = {feature.name: feature.flops for feature in FEATURES}
    expensive = stated["similarity_mean"] + stated["reconstruction_error"]
    assert expensive == pytest.approx(counted, rel=0.01)
    assert sum(stated.values()) < 1.02 * expensive
