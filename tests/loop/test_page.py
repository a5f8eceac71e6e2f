"""Arms share what they do alike, and each pays for all that it would have needed alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ponderttt.actions import Action
from ponderttt.loop.methods import Spending, arm_of
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.running import action_costs
from ponderttt.loop.stream import run_streams
from ponderttt.names import KINDS, MethodName
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.rules import Schedule
from ponderttt.settings.rules import RulesConfig
from tiny_streams import fresh, make_stream, random_tokens, suffix_block

SPENDING = Spending(3.0, NOMINAL_COSTS, RulesConfig())
S, U1, U2 = Action.SKIP, Action.UPDATE_1, Action.UPDATE_2


def arms(programs, *sequences):
    return [
        replace(
            arm_of(MethodName("update_1"), programs, SPENDING, 0, Schedule(sequence)), name=f"update_1 {i}"
        )
        for i, sequence in enumerate(sequences)
    ]


class Counting:
    """A program that counts how often it is run."""

    def __init__(self, program) -> None:
        self.program, self.runs = program, 0

    def __call__(self, *args):
        self.runs += 1
        return self.program(*args)


def test_arms_with_the_same_past_are_scored_and_adapted_once(unembedding):
    programs = ModulePrograms(fresh("lora"))
    programs.score = score = Counting(programs.score)
    programs.adapt = {action: Counting(program) for action, program in programs.adapt.items()}
    stream = make_stream("a", random_tokens(1, 3))
    steps = run_streams(arms(programs, (S, U1, U1), (S, U1, U2), (U2, U1, S)), Group([stream], unembedding))
    # Chunk 0: one past.  Chunk 1: untouched, or after UPDATE_2.  Chunk 2: after U1 on either.
    assert score.runs == 1 + 2 + 2
    # Nothing is learned from the last chunk.
    assert programs.adapt[U1].runs == 2
    assert programs.adapt[U2].runs == 1
    # And each is charged for what it would have done alone.
    alone = run_streams(arms(programs, (S, U1, U2)), Group([stream], unembedding))["update_1 0"]
    shared = steps["update_1 1"]
    assert [s.flops for s in shared] == [s.flops for s in alone]
    assert [s.loss for s in shared] == [s.loss for s in alone]


def test_each_kind_pays_for_what_it_reads(unembedding):
    """Frozen pass 2 of which 1 after the split, losses 1, features a half; the shared projection is 2·T·D·V."""
    group = Group([make_stream("a", random_tokens(1, 1))], unembedding, suffix_block())
    page = group.page(0)
    programs = {kind: ModulePrograms(fresh(kind)) for kind in KINDS}

    def flops(kind: str, observes: str | None = None) -> float:
        return page.frozen_cost(programs[kind], observes, 0).flops

    projection = 2 * 48 * 32 * 64
    assert flops("ttt") == flops("lora") == 2 + projection
    # More than the losses of this stream are said to cost, so no sweep is left to charge.
    assert flops("lora", "entropy") == 2 + projection
    assert flops("memory") == flops("memory", "entropy") == flops("memory", "reconstruction") == 2 + 1
    assert flops("suffix") == 1
    assert flops("suffix", "reconstruction") == 2
    assert flops("suffix", "entropy") == 2 + 1
    # Features cost every kind the same.
    for kind in KINDS:
        assert flops(kind, "features") == flops(kind, "entropy") + 0.5


def test_the_reconstruction_of_a_module_without_its_own_costs_the_comparison_with_the_preceding_chunk(
    unembedding,
):
    """One of the features, and here more than they are said to cost; the first chunk is compared with nothing."""
    group, lora = Group([make_stream("a", random_tokens(1, 2))], unembedding), ModulePrograms(fresh("lora"))
    first, second = (group.page(t).frozen_cost(lora, "reconstruction", 0).flops for t in (0, 1))
    assert second == first + 0.5


def test_entropy_costs_a_sweep_over_the_logits_of_a_module_that_has_them(unembedding):
    """Losses of three projections in all: the product, and two for the sweep."""
    projection = 2.0 * 48 * 32 * 64
    stream = make_stream("a", random_tokens(1, 1))
    stream = stream._replace(projection_flops=3 * projection * stream.projection_flops)
    page, lora = Group([stream], unembedding).page(0), ModulePrograms(fresh("lora"))
    assert page.frozen_cost(lora, "entropy", 0).flops == pytest.approx(2 + 3 * projection)
    assert page.frozen_cost(lora, None, 0).flops == 2 + projection


@pytest.mark.parametrize("kind", KINDS)
def test_counted_costs_of_actions_are_those_of_what_runs(kind, unembedding):
    programs = ModulePrograms(fresh(kind))
    stream = make_stream("a", random_tokens(1, 2))
    costs = action_costs(programs, [stream], unembedding, suffix_block(), "flops")
    sequences = [(action,) for action in Action]
    steps = run_streams(arms(programs, *sequences), Group([stream], unembedding, suffix_block()))
    spent = np.array([steps[f"update_1 {i}"][0].flops for i in range(len(Action))])
    np.testing.assert_allclose(costs, spent / spent[0], rtol=1e-9)
    assert action_costs(programs, [stream], unembedding, suffix_block(), "nominal") == NOMINAL_COSTS
