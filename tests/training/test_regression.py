"""Ridge regression of gains: the solution worked by hand, and a penalty chosen by streams that were left out."""

from __future__ import annotations

import numpy as np
import pytest

from ponderttt.training.regression import fit_ridge, group_importance


def test_the_solution_is_the_one_worked_by_hand():
    """x = (−1, 0, 1) twice, y = 2x + 1: Σx² = 4, Σxy = 8, so with penalty 4 the slope is 8 / (4 + 4) = 1."""
    inputs = np.array([[-1.0], [0.0], [1.0]] * 2)
    fitted = fit_ridge(inputs, 2 * inputs[:, 0] + 1, np.array([0, 0, 0, 1, 1, 1]), [4.0])
    assert fitted.coefficients.tolist() == pytest.approx([1.0])
    assert fitted.intercept == pytest.approx(1.0)


def test_the_penalty_is_the_one_that_does_best_on_streams_left_out():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(80, 12))
    streams = np.repeat(np.arange(8), 10)
    told = fit_ridge(inputs, inputs[:, 3], streams, [0.01, 1000.0])
    assert told.penalty == 0.01
    assert told.explained > 0.99
    noise = fit_ridge(inputs, rng.normal(size=80), streams, [0.01, 1000.0])
    assert noise.penalty == 1000.0
    assert noise.explained < 0.1


def test_what_is_explained_is_judged_on_streams_left_out():
    """A feature that names the stream explains its own gains, and those of no other stream."""
    streams = np.repeat(np.arange(6), 5)
    inputs = np.eye(6)[streams]
    gains = np.random.default_rng(1).normal(size=6)[streams]
    assert fit_ridge(inputs, gains, streams, [0.1]).explained < 0.1


def test_shuffling_what_tells_costs_all_and_shuffling_noise_nothing():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(120, 4))
    streams = np.repeat(np.arange(6), 20)
    gains = 3 * inputs[:, 0]
    lost = group_importance(inputs, gains, streams, ["told", "noise", "noise", "noise"], 0.1, 0)
    # A shuffled feature is independent of the gain: the error is that of both.
    assert lost["told"] == pytest.approx(2.0, rel=0.15)
    assert abs(lost["noise"]) < 0.01
