"""Oracles spend what rules spend, look where they may, and the exhaustive one is beaten by no sequence."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from ponderttt.actions import Action
from ponderttt.errors import PonderTTTError
from ponderttt.loop.methods import Spending, arm_of
from ponderttt.loop.oracles import exhaustive_oracle, greedy_oracle, price_of_budget
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.running import Budget, run_arms
from ponderttt.loop.stream import run_streams
from ponderttt.names import MethodName
from ponderttt.policies.budget import NOMINAL_COSTS, budget_tables
from ponderttt.policies.rules import Schedule
from ponderttt.settings.rules import RulesConfig
from tiny_streams import CHUNK, fresh, make_stream, random_tokens, suffix_block

#: 11 over four chunks: 1 + 3 + 6 in any order, then 1 after the last, and no other way.
BUDGET = 2.75


@pytest.fixture(scope="module")
def stream():
    """Its second and fourth chunk repeat the first, its third is new."""
    first, new = random_tokens(4, 1)[:-1], random_tokens(5, 1)[:-1]
    return make_stream("again", np.concatenate([first, first, new, first, first[:1]]))


@pytest.fixture(scope="module", params=["memory", "lora"])
def programs(request):
    return ModulePrograms(fresh(request.param))


def reader(programs):
    return arm_of(MethodName("skip"), programs, Spending(BUDGET, NOMINAL_COSTS, RulesConfig()), seed=0)


def total_losses(programs, stream, unembedding, sequences):
    """Total loss of each sequence of actions, through the loop."""
    spending = Spending(BUDGET, NOMINAL_COSTS, RulesConfig())
    arms = [
        replace(arm_of(MethodName("update_1"), programs, spending, 0, Schedule(sequence)), name=str(i))
        for i, sequence in enumerate(sequences)
    ]
    runs = run_streams(arms, Group([stream], unembedding))
    return [sum(step.loss * step.n_tokens for step in runs[arm.name]) for arm in arms]


def sequences_of(total: float, length: int) -> list[tuple[Action, ...]]:
    return [
        actions
        for actions in itertools.product(Action, repeat=length)
        if sum(action.nominal_cost for action in actions) == total and actions[-1] is Action.SKIP
    ]


def test_no_sequence_of_the_same_cost_beats_the_exhaustive_oracle(programs, stream, unembedding):
    found = exhaustive_oracle(
        reader(programs), Group([stream], unembedding), budget_tables(NOMINAL_COSTS, BUDGET)
    )
    candidates = sequences_of(11.0, 4)
    assert len(candidates) == 6
    assert found.actions in candidates
    losses = dict(zip(candidates, total_losses(programs, stream, unembedding, candidates), strict=True))
    assert losses[found.actions] == pytest.approx(min(losses.values()), rel=1e-6)
    assert max(losses.values()) > min(losses.values()) + 0.1


def test_the_greedy_oracle_spends_the_budget_and_reports_what_it_saw(programs, stream, unembedding):
    found = greedy_oracle(
        reader(programs), Group([stream], unembedding), budget_tables(NOMINAL_COSTS, BUDGET)
    )
    assert sum(action.nominal_cost for action in found.actions) == 11.0
    # From fresh weights, the gain on chunk 1 of each action on chunk 0 is what the loop itself makes of it.
    rest = (Action.SKIP,) * 3
    spending = Spending(BUDGET, NOMINAL_COSTS, RulesConfig())
    arms = [
        replace(arm_of(MethodName("update_1"), programs, spending, 0, Schedule((a, *rest))), name=a.name)
        for a in Action
    ]
    runs = run_streams(arms, Group([stream], unembedding))
    losses = [runs[arm.name][1].loss for arm in arms]
    assert found.look_ahead[0] == pytest.approx([losses[0] - loss for loss in losses[1:]], abs=1e-6)
    assert found.look_ahead[-1] is None


def test_an_oracle_is_an_arm_like_any_other(stream, unembedding):
    """Its steps carry the look-ahead; its costs are those of the actions that it replays, not of its search."""
    methods = ["skip", "update_1", "greedy_oracle", "greedy_oracle@2"]
    names = [MethodName.parse(method) for method in methods]
    steps = run_arms(fresh("memory"), [stream], unembedding, names, budget=Budget(BUDGET), seed=0)
    assert [sum(s.action.nominal_cost for s in steps[m]) for m in methods[2:]] == [11.0, 8.0]
    assert steps["greedy_oracle"][0].look_ahead is not None
    assert steps["update_1"][0].look_ahead is None
    update = steps["greedy_oracle@2"][0]
    same = steps["update_1"][0] if update.action is Action.UPDATE_1 else steps["skip"][0]
    assert update.flops == same.flops


def test_streams_too_long_to_search_are_refused(unembedding):
    long = make_stream("long", random_tokens(6, 7))
    programs = ModulePrograms(fresh("memory"))
    with pytest.raises(PonderTTTError, match="long has 7 chunks") as error:
        exhaustive_oracle(reader(programs), Group([long], unembedding), budget_tables(NOMINAL_COSTS, 3.0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("gains", "mean_cost", "price"),
    [
        # Between UPDATE_1 (2 units, gain 4) and UPDATE_2 (5 units, gain 7) the slope is 1.
        ([0.0, 4.0, 7.0, 8.0], 3.0, 1.0),
        # At UPDATE_1 itself: the middle of 4/2 before and 3/3 after.
        ([0.0, 4.0, 7.0, 8.0], 2.0, 1.5),
        # UPDATE_1 lies below the line from SKIP to UPDATE_2, whose slope is 7/5.
        ([0.0, 1.0, 7.0, 8.0], 1.0, 1.4),
        # Updates that do harm are worth nothing.
        ([0.0, -1.0, -2.0, -3.0], 3.0, 0.0),
    ],
)
def test_the_price_of_a_budget_by_hand(gains, mean_cost, price):
    costs = np.array([0.0, 2.0, 5.0, 11.0])
    assert price_of_budget(np.array(gains), costs, mean_cost) == pytest.approx(price)


def test_an_oracle_of_the_suffix_reads_from_the_split(unembedding):
    stream = make_stream("s", random_tokens(8, 3))
    steps = run_arms(
        fresh("suffix"),
        [stream],
        unembedding,
        [MethodName("greedy_oracle")],
        budget=Budget(10 / 3),
        seed=0,
        suffix=suffix_block(),
    )["greedy_oracle"]
    assert sum(s.action.nominal_cost for s in steps) == 10.0
    assert stream.hidden.shape[1] == CHUNK
