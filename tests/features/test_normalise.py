"""Normalised features have the mean and the spread of training streams taken out."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from ponderttt.errors import PonderTTTError
from ponderttt.features import normalise
from ponderttt.features.table import FEATURES, NAMES


@pytest.fixture
def training() -> np.ndarray:
    rows = np.random.default_rng(0).normal(5.0, 2.0, size=(200, len(NAMES)))
    rows[:, 3] = 0.1
    return rows


def test_statistics_are_the_mean_and_the_standard_deviation() -> None:
    found = normalise.fit(np.array([[1.0, 10.0, 7.0], [3.0, 30.0, 7.0]]))
    np.testing.assert_allclose(found.mean, [2, 20, 7])
    # The last one is constant: its scale is 1.
    np.testing.assert_allclose(found.scale, [1, 10, 1])


def test_features_are_z_scores_clipped() -> None:
    found = normalise.fit(np.array([[1.0, 10.0, 7.0], [3.0, 30.0, 7.0]]))
    np.testing.assert_allclose(normalise.apply(found, np.array([3.0, 5.0, 7.5])), [1, -1.5, 0.5])
    np.testing.assert_allclose(normalise.apply(found, np.array([1e9, -1e9, 7.0])), [5, -5, 0])


def test_training_features_come_out_with_mean_0_and_spread_1(training: np.ndarray) -> None:
    scores = np.asarray(normalise.apply(normalise.fit(training), training))
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.delete(scores.std(axis=0), 3), 1, atol=1e-4)
    # A constant that no float holds exactly stays constant.
    np.testing.assert_allclose(scores[:, 3], 0, atol=1e-6)


def test_it_is_traceable_over_streams(training: np.ndarray) -> None:
    found = normalise.fit(training)
    traced = jax.jit(jax.vmap(normalise.apply, in_axes=(None, 0)))(found, training[:4])
    np.testing.assert_allclose(traced, normalise.apply(found, training[:4]), rtol=1e-6)


def test_a_feature_that_is_not_finite_is_named(training: np.ndarray) -> None:
    training[7, NAMES.index("perplexity")] = np.nan
    with pytest.raises(PonderTTTError, match="perplexity"):
        normalise.fit(training)


def test_no_chunk_is_an_error() -> None:
    with pytest.raises(PonderTTTError, match="no chunk"):
        normalise.fit(np.zeros((0, len(NAMES))))


def test_a_policy_does_not_see_the_groups_that_are_left_out(training: np.ndarray) -> None:
    seen = np.asarray(normalise.apply(normalise.blind(normalise.fit(training), ["code"]), training))
    hidden = np.array([feature.group == "code" for feature in FEATURES])
    assert hidden.sum() == 8
    assert (seen[:, hidden] == 0).all()
    assert (np.ptp(seen[:, ~hidden], axis=0) > 0).sum() >= (~hidden).sum() - 1
