"""What p values can carry: the fewest streams of a claim, what chance alone gives, Holm's correction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponderttt.reporting.numbers.sampling import StreamSampling
from ponderttt.reporting.numbers.significance import fewest_streams, holm, largest_p
from ponderttt.settings.statistics import StatisticsConfig


def test_a_claim_needs_six_streams_at_95_per_cent() -> None:
    assert [fewest_streams(confidence) for confidence in (0.5, 0.9, 0.95, 0.99, 0.999)] == [2, 5, 6, 8, 11]


@pytest.mark.parametrize(("n", "expected"), [(4, 0), (5, 0), (6, 2 / 64), (8, 12 / 256), (40, 0.05)])
def test_the_chance_of_a_small_p_is_that_of_the_p_values_that_exist(n: int, expected: float) -> None:
    assert largest_p(n, 0.95) == pytest.approx(expected)


def test_as_many_effects_are_clear_by_chance_as_is_said() -> None:
    sampling = StreamSampling.of(7, "x", StatisticsConfig())
    rng = np.random.default_rng(0)
    p = [sampling.p_value(rng.normal(size=7)) for _ in range(4000)]
    # 3 of 64: multiples of 2 / 128 up to 0.05.
    assert largest_p(7, 0.95) == 3 / 64
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(3 / 64, abs=0.01)


def test_holm_worked_by_hand() -> None:
    # Smallest first: 4 · 0.01, 3 · 0.02, 2 · 0.03, 1 · 0.04, none below the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lies_between_no_correction_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    for one, other in zip(p, adjusted, strict=True):
        assert one <= other <= min(1.0, len(p) * one) + 1e-15
    assert [adjusted[i] for i in np.argsort(p, kind="stable")] == sorted(adjusted)
