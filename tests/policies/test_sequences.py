"""Sequences that spend a budget: all of them and no others, and a warning before there is too little to decide."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.policies.budget import NOMINAL_COSTS, budget_tables, stream_units
from ponderttt.policies.rules import Random
from ponderttt.policies.sequences import Allowance, check_room

UNITS = (0, 2, 5, 11)


def test_six_chunks_at_three_have_thirty_sequences_counted_by_hand():
    """12 units over five chunks: two UPDATE_2, one UPDATE_1, two SKIP, in 5! / (2! · 2!) = 30 orders."""
    allowance = Allowance.of(NOMINAL_COSTS, 3.0, 6)
    assert (allowance.total, allowance.count) == (12, 30)
    sequences = allowance.sequences()
    assert {tuple(sorted(row)) for row in sequences.tolist()} == {(0, 0, 0, 1, 2, 2)}
    assert len({tuple(row) for row in sequences.tolist()}) == len(sequences) == 30
    assert not sequences[:, -1].any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(110, 1190))
def test_sequences_are_those_of_the_largest_total_within_the_budget(chunks, hundredths):
    budget = hundredths / 100
    allowance = Allowance.of(NOMINAL_COSTS, budget, chunks)
    tried = [(*s, 0) for s in itertools.product(range(4), repeat=chunks - 1)]
    spent = np.array([sum(UNITS[a] for a in s) for s in tried])
    given_units = int(stream_units(budget_tables(NOMINAL_COSTS, budget), chunks))
    total = spent[spent <= given_units].max()
    expected = [s for s, units in zip(tried, spent, strict=True) if units == total]
    assert allowance.total == total
    assert [tuple(row) for row in allowance.sequences().tolist()] == expected
    assert allowance.count == len(expected)
    used = {action for sequence in expected for action in sequence[:-1]} or {0}
    assert [int(action) for action in allowance.actions] == sorted(used)


def test_random_draws_from_these_sequences(play):
    streams = play(Random(3.0), [6] * 600)
    listed = {tuple(row) for row in Allowance.of(NOMINAL_COSTS, 3.0, 6).sequences().tolist()}
    assert {tuple(stream.action.tolist()) for stream in streams} == listed


def test_a_budget_without_any_choice_is_refused_in_one_line():
    """3 × 3 − 3 = 6 units over two chunks is rounded down to 5 (a choice of order); 2 × 2 − 2 over one is UPDATE_1."""
    with pytest.raises(
        PonderTTTError, match=r"streams of 2 chunks a single sequence .*UPDATE_1, SKIP"
    ) as error:
        check_room(NOMINAL_COSTS, 2.0, 2)
    assert "\n" not in str(error.value)
    with pytest.raises(PonderTTTError, match=r"counted FLOPs .*single sequence .*UPDATE_1, UPDATE_1, SKIP"):
        check_room((1.0, 1.1, 1.3, 1.7), 1.07, 3)


def test_a_budget_that_leaves_out_an_action_is_told_with_the_number_of_sequences():
    warning = check_room(NOMINAL_COSTS, 3.0, 6)
    assert warning is not None
    assert "30 sequences" in warning and "UPDATE_4 in none" in warning and "\n" not in warning


@pytest.mark.parametrize("chunks", [1, 8, 64, 65, 1000])
def test_a_budget_with_room_says_nothing(chunks):
    assert check_room(NOMINAL_COSTS, 3.0, chunks) is None


def test_the_actions_of_a_prefix_are_those_that_can_be_completed():
    allowance = Allowance.of(NOMINAL_COSTS, 3.0, 6)
    # After UPDATE_2 twice, 2 units over three chunks.
    assert list(allowance.allowed(10, 2)) == [True, True, False, False]
    assert list(allowance.allowed(12, 5)) == [action is Action.SKIP for action in Action]
