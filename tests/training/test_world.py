"""The world of policy training answers as the loop does, pays for each answer once, and rollouts are trajectories of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import ponderttt.loop.page
from ponderttt.actions import Action
from ponderttt.costs import Measured
from ponderttt.fast_weights.base import Chunk
from ponderttt.loop.arm import Arm
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms, project
from ponderttt.loop.stream import run_streams
from ponderttt.policies.budget import NOMINAL_COSTS, budget_tables
from ponderttt.policies.rules import Random, Schedule
from ponderttt.training.rollouts import Choice, Episode, demonstrate, rollout
from ponderttt.training.visits import random_actions, visit
from ponderttt.training.world import World
from tiny_streams import UNEMBEDDING, awake, make_stream, random_tokens, suffix_block

STREAMS = [make_stream("a", random_tokens(1, 4)), make_stream("b", random_tokens(2, 3))]
PATHS = (
    (Action.UPDATE_1, Action.SKIP, Action.UPDATE_2, Action.SKIP),
    (Action.SKIP, Action.SKIP, Action.UPDATE_4, Action.UPDATE_1),
)


@pytest.fixture(scope="module")
def programs():
    return {kind: ModulePrograms(awake(kind)) for kind in ("ttt", "lora", "memory", "suffix")}


@pytest.fixture
def world(programs) -> World:
    return World(programs["ttt"], STREAMS, UNEMBEDDING)


@pytest.mark.parametrize("kind", ["ttt", "lora", "memory", "suffix"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("memory_bytes", "logits_bytes"), [(1 << 30, 1e9), (0, 0)])
def test_an_episode_sees_what_the_loop_sees_and_loses_what_the_loop_loses(
    kind, path, memory_bytes, logits_bytes, programs
):
    """To the bit, also where fast weights must be made again from the updates that led to them."""
    world = World(programs[kind], STREAMS, UNEMBEDDING, suffix_block(), memory_bytes, logits_bytes)
    arm = Arm("replay", programs[kind], Schedule(path), "score_first", 0)
    steps = run_streams([arm], Group(STREAMS[:1], UNEMBEDDING, suffix_block()))["replay"]
    episode = Episode(world, 0, np.inf, NOMINAL_COSTS)
    for step, action in zip(steps, path, strict=True):
        features = episode.observe()
        assert episode.read.loss == step.loss
        assert features.tolist() == list(step.features)
        ended = episode.act(action)
    assert ended


def test_an_answer_is_paid_for_once(world):
    def walk() -> None:
        episode = Episode(world, 0, np.inf, NOMINAL_COSTS)
        for action in PATHS[0]:
            episode.observe()
            episode.act(action)

    walk()
    known, seconds = len(world), world.seconds
    assert seconds > 0
    walk()
    assert (len(world), world.seconds) == (known, seconds)


def test_frozen_logits_that_there_is_room_for_are_made_once(programs, monkeypatch):
    made = []

    def counted(chunk: Chunk, unembedding: Array) -> Measured:
        made.append(chunk.hidden.shape)
        return project(chunk, unembedding)

    monkeypatch.setattr(ponderttt.loop.page, "project", counted)
    first = 4 * len(UNEMBEDDING) * STREAMS[0].targets.size
    counts = []
    for room in (0, first, 1e9):
        made.clear()
        world = World(programs["lora"], STREAMS, UNEMBEDDING, logits_bytes=room)
        for path in PATHS:
            for stream in range(len(STREAMS)):
                episode = Episode(world, stream, np.inf, NOMINAL_COSTS)
                for action in path[: world.length(stream)]:
                    episode.observe()
                    episode.act(action)
        counts.append(len(made))
    chunks = [len(stream.hidden) for stream in STREAMS]
    # Twice each where nothing is kept, but for chunk 0, whose answer is known when it comes round again.
    assert counts[0] > counts[1] > counts[2] == sum(chunks)


@pytest.mark.parametrize("kind", ["ttt", "lora", "suffix", "memory"])
def test_steps_that_are_said_to_compose_do(kind, programs):
    """UPDATE_4 is UPDATE_2 twice and that is UPDATE_1 twice; a memory stores another share of the chunk."""
    program, page = programs[kind], Group(STREAMS[:1], UNEMBEDDING, suffix_block()).page(0)
    arguments = page.chunk(program), page.readout(program)
    fresh = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], program.reset(program.slow).value)

    def after(*actions: Action) -> list[np.ndarray]:
        fast = fresh
        for action in actions:
            fast = program.adapt[action](program.slow, fast, *arguments).value.fast
        return [np.asarray(leaf) for leaf in jax.tree.leaves(fast)]

    whole, halves = after(Action.UPDATE_4), after(Action.UPDATE_2, Action.UPDATE_1, Action.UPDATE_1)
    equal = all(np.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(whole, halves, strict=True))
    assert program.steps_compose == (kind in ("lora", "suffix"))
    assert equal or not program.steps_compose
    assert kind != "memory" or not equal


def test_skips_lead_to_answers_that_are_shared(world):
    """SKIP, UPDATE_1 and then anything reads what UPDATE_1 alone made, whatever was skipped before."""
    first = world.learn(0, 1, (), Action.UPDATE_1)
    assert world.learn(0, 0, (), Action.SKIP) == ()
    assert world.read(0, 3, first) == world.read(0, 3, world.learn(0, 2, first, Action.SKIP))


def test_a_rollout_is_one_trajectory_per_stream_with_the_reward_on_the_next_chunk(world):
    def choose(features: np.ndarray, step: int) -> Choice:
        size = len(features)
        actions = np.array([(step + e) % 2 for e in range(size)])
        return Choice(actions, np.zeros(size), np.full(size, step), np.full(size, -step))

    found = rollout(world, choose, [1, 0], steps=9, environments=2, budget=3.0, costs=NOMINAL_COSTS)
    # Three chunks, then four, then the first two of the first stream again.
    assert np.flatnonzero(found.end[:, 0]).tolist() == [2, 6]
    assert (found.end[:, 0] == found.end[:, 1]).all()
    # UPDATE_1 costs 3, but is not made after the last chunk of a stream.
    ends = (2, 6)
    paid = [[1.0 if n in ends else 1.0 + 2 * ((n + e) % 2) for e in range(2)] for n in range(9)]
    assert found.cost.tolist() == paid
    assert found.value[:, 0].tolist() == list(range(9))
    assert found.last.value.tolist() == [9, 9]
    # Environment 1 updates at chunk 0 of stream 1; environment 0 does not.
    updated = world.learn(1, 0, (), Action.UPDATE_1)
    frozen = world.loss_frozen(1, 1)
    assert found.reward[0].tolist() == [
        frozen - world.read(1, 1, ()).loss,
        frozen - world.read(1, 1, updated).loss,
    ]
    assert (found.reward[found.end] == 0).all()


def test_random_sequences_spend_the_budget_of_every_stream_to_the_unit():
    tables = budget_tables(NOMINAL_COSTS, 3.5)
    rng = np.random.default_rng(0)
    drawn = {tuple(random_actions(tables, 6, rng)) for _ in range(40)}
    assert {sum(action.nominal_cost for action in actions) for actions in drawn} == {21.0}
    assert len(drawn) > 20


def test_the_gain_of_an_update_is_what_it_saves_on_all_later_chunks(world):
    tables = budget_tables(NOMINAL_COSTS, 3.0)
    visits = visit(world, tables, NOMINAL_COSTS, 2, seed=0, with_gains=True)
    # Nothing is decided after the last chunk of a stream.
    assert len(visits.gain) == len(visits.features) == 2 * (3 + 2)
    # The first chunk, twice, with nothing learned before it.
    after = world.learn(0, 0, (), Action.UPDATE_1)
    saved = sum(world.read(0, t, ()).loss - world.read(0, t, after).loss for t in (1, 2, 3))
    assert visits.gain[:2].tolist() == pytest.approx([saved, saved], rel=1e-12)
    assert visits.stream.tolist() == [0] * 6 + [1] * 4


def test_a_demonstration_shows_the_decisions_of_a_rule(world):
    features, actions = demonstrate(world, Schedule((Action.UPDATE_2, Action.SKIP)), 3.0, NOMINAL_COSTS, 0)
    assert actions.tolist() == [2, 0, 0, 0, 2, 0, 0]
    assert features.shape[0] == 7
    random = Random(3.5)
    one, two = (demonstrate(world, random, 3.0, NOMINAL_COSTS, 0, number)[1].tolist() for number in (0, 1))
    assert one != two
    assert one == demonstrate(world, random, 3.0, NOMINAL_COSTS, 0, 0)[1].tolist()
