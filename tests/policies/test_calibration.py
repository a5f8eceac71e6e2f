"""Calibrations: what is kept of training streams, and what is refused."""

from __future__ import annotations

import pytest

from ponderttt.errors import PonderTTTError
from ponderttt.policies.calibration import calibrate


def test_values_are_kept_in_order():
    assert calibrate({"loss": [3.0, 1.0, 2.0]}).values("loss") == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_nothing_and_what_is_not_finite_are_refused_by_name(values):
    with pytest.raises(PonderTTTError, match="signal 'loss'") as error:
        calibrate({"loss": values})
    assert "\n" not in str(error.value)


def test_a_signal_that_was_not_calibrated_is_named_with_those_that_were():
    with pytest.raises(PonderTTTError, match="no signal 'entropy', only loss"):
        calibrate({"loss": [1.0]}).values("entropy")
