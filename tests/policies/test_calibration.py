"""Calibrations: what is kept of training streams, as text and back, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.policies.calibration import Calibration, achieved, calibrate


def test_values_are_kept_in_order_and_features_as_mean_and_deviation():
    calibration = calibrate({"loss": [3.0, 1.0, 2.0]}, {"depth": [1.0, 3.0], "constant": [4.0, 4.0]})
    assert calibration.values("loss") == (1.0, 2.0, 3.0)
    assert calibration.features == {"depth": (2.0, 1.0), "constant": (4.0, 1.0)}


@given(
    st.dictionaries(
        st.sampled_from(["entropy", "loss", "reconstruction"]),
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9),
    )
)
def test_a_calibration_survives_being_written(signals):
    calibration = calibrate(signals, {"x": [0.1, 0.7]})
    assert Calibration.from_json(calibration.to_json()) == calibration


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_nothing_and_what_is_not_finite_are_refused_by_name(values):
    for arguments in (({"loss": values},), ({}, {"loss": values})):
        with pytest.raises(PonderTTTError, match="signal 'loss'") as error:
            calibrate(*arguments)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"signals": {"loss": 3}, "features": {}}', '{"signals": [], "features": {}}'],
)
def test_text_that_is_no_calibration_is_refused(text):
    with pytest.raises(PonderTTTError, match="not a calibration"):
        Calibration.from_json(text)


def test_text_with_an_empty_signal_or_an_infinite_feature_is_refused():
    with pytest.raises(PonderTTTError, match="signal 'loss' has no value"):
        Calibration.from_json('{"signals": {"loss": []}, "features": {}}')
    with pytest.raises(PonderTTTError, match="not a calibration"):
        Calibration.from_json('{"signals": {}, "features": {"x": [Infinity, 1.0]}}')


def test_a_signal_that_was_not_calibrated_is_named_with_those_that_were():
    with pytest.raises(PonderTTTError, match="no signal 'entropy', only loss"):
        calibrate({"loss": [1.0]}).values("entropy")


def test_the_achieved_allocation_counts_all_four_actions():
    taken = [Action.SKIP, Action.UPDATE_2, Action.SKIP, Action.UPDATE_4]
    assert achieved(taken) == {
        Action.SKIP: 0.5,
        Action.UPDATE_1: 0.0,
        Action.UPDATE_2: 0.25,
        Action.UPDATE_4: 0.25,
    }
    with pytest.raises(ValueError, match="no decision"):
        achieved([])
