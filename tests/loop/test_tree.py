"""The enumerated tree has the losses of the loop, all of them, and no others."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from ponderttt.actions import Action
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.fast_weights.build import build
from ponderttt.loop.methods import Spending, arm_of
from ponderttt.loop.page import Group
from ponderttt.loop.stream import run_streams
from ponderttt.loop.tree import Enumerator
from ponderttt.names import MethodName
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.rules import Random, Schedule
from ponderttt.policies.sequences import Allowance
from ponderttt.records.sequences import SEQUENCES, StreamLosses, read_sequences, write_sequences
from ponderttt.settings.fast_weights import FastWeightsConfig, MemoryConfig
from ponderttt.settings.rules import RulesConfig
from tiny_streams import CHUNK, WIDTH, make_stream, random_tokens, suffix_block

SPENDING = Spending(3.0, NOMINAL_COSTS, RulesConfig())
#: Seven units over three chunks: UPDATE_1, UPDATE_2 and SKIP in six orders, or three UPDATE_1 for 6: no.
ALLOWANCE = Allowance.of(NOMINAL_COSTS, 2.75, 4)


@pytest.fixture(scope="module")
def stream():
    """Its later chunks repeat parts of the earlier ones; the last is half empty."""
    first, new = random_tokens(4, 1)[:-1], random_tokens(5, 1)[:-1]
    tokens = np.concatenate([first, first, new, first, first[:1]])
    return make_stream("again", tokens, last=20)


def recorded(programs, stream, unembedding, sequences) -> np.ndarray:
    """Losses of every chunk after each sequence, as the loop records them."""
    arms = [
        replace(
            arm_of(MethodName("update_1"), programs, SPENDING, 0, Schedule(tuple(map(Action, s)))),
            name=str(i),
        )
        for i, s in enumerate(sequences)
    ]
    steps = run_streams(arms, Group([stream], unembedding, suffix_block()))
    return np.array([[step.loss for step in steps[arm.name]] for arm in arms])


@pytest.mark.parametrize("kind", ["ttt", "lora", "suffix"])
def test_enumerated_losses_are_those_of_the_loop_bit_for_bit(kind, awake_modules, stream, unembedding):
    enumerator = Enumerator(awake_modules[kind], unembedding, suffix_block())
    found = enumerator.losses(stream, [ALLOWANCE])
    assert np.array_equal(found.sequences, ALLOWANCE.sequences())
    assert sum(len(level) for level in found.levels) == ALLOWANCE.nodes
    assert found.width is None
    expected = recorded(enumerator.programs, stream, unembedding, found.sequences)
    assert np.array_equal(found.losses, expected)
    # The first two chunks are equal, so their order does not matter to the last; else all differ.
    assert len(np.unique(expected[:, -1])) == 3


@pytest.mark.parametrize("capacity", [4 * CHUNK, CHUNK + 30])
def test_the_sums_of_a_memory_are_what_the_loop_reads(capacity, stream, unembedding):
    """All 4³ sequences; the loop sums in another order.  A smaller ring drops pairs."""
    config = FastWeightsConfig(memory=MemoryConfig(capacity=capacity))
    enumerator = Enumerator(build("memory", WIDTH, config, seed=0), unembedding)
    found = enumerator.losses(stream, [])
    everything = [(*s, 0) for s in itertools.product(range(4), repeat=3)]
    assert [tuple(row) for row in found.sequences.tolist()] == everything
    expected = recorded(enumerator.programs, stream, unembedding, everything)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.losses[0], stream.loss_frozen)
    assert np.ptp(expected[:, -1]) > 0.1


def test_several_budgets_share_one_tree(awake_modules, stream, unembedding):
    other = Allowance.of(NOMINAL_COSTS, 2.0, 4)
    found = Enumerator(awake_modules["lora"], unembedding).losses(stream, [ALLOWANCE, other])
    together = {tuple(row) for a in (ALLOWANCE, other) for row in a.sequences().tolist()}
    assert {tuple(row) for row in found.sequences.tolist()} == together


def test_the_mean_over_all_sequences_is_that_of_many_random_draws(awake_modules, stream, unembedding):
    """Within three standard errors of 200 draws of the method ``random`` in the loop."""
    enumerator = Enumerator(awake_modules["lora"], unembedding)
    found = enumerator.losses(stream, [ALLOWANCE])
    arms = [
        replace(
            arm_of(MethodName("random"), enumerator.programs, SPENDING, seed, Random(2.75)), name=str(seed)
        )
        for seed in range(200)
    ]
    runs = run_streams(arms, Group([stream], unembedding))
    drawn = np.array([sum(step.loss * step.n_tokens for step in steps) for steps in runs.values()])
    assert abs(drawn.mean() - found.nats.mean()) < 3 * drawn.std(ddof=1) / np.sqrt(len(drawn))
    # And no draw is better than the best sequence.
    assert drawn.min() >= found.nats.min() - 1e-9


def test_a_tree_that_is_too_large_is_searched_with_a_beam_that_widens(awake_modules, stream, unembedding):
    """Six sequences are few enough for the beam to find the best one, and it says how wide it was."""
    whole = Enumerator(awake_modules["lora"], unembedding).losses(stream, [ALLOWANCE])
    beam = Enumerator(awake_modules["lora"], unembedding, max_nodes=3, beam_width=1)
    found = beam.losses(stream, [ALLOWANCE])
    assert found.width == 2
    assert found.nats.min() == whole.nats.min()
    assert len(found.sequences) <= len(whole.sequences)


def test_what_is_written_is_read(tmp_path, awake_modules, stream, unembedding):
    found = Enumerator(awake_modules["lora"], unembedding).losses(stream, [ALLOWANCE])
    searched = Enumerator(awake_modules["lora"], unembedding, max_nodes=3).losses(
        stream._replace(stream_id="other"), [ALLOWANCE]
    )
    write_sequences(tmp_path, [found, searched], {"seed": 0})
    streams, facts = read_sequences(tmp_path, "make it")
    assert facts["seed"] == 0
    for read, written in zip(streams, [found, searched], strict=True):
        assert read.width == written.width
        assert np.array_equal(read.sequences, written.sequences)
        assert np.array_equal(read.losses, written.losses)
        assert np.array_equal(read.n_tokens, written.n_tokens)


def test_damage_is_one_line_with_the_remedy(tmp_path, awake_modules, stream, unembedding):
    found = Enumerator(awake_modules["lora"], unembedding).losses(stream, [ALLOWANCE])
    write_sequences(tmp_path, [found], {})
    (tmp_path / SEQUENCES).write_bytes(b"no table")
    with pytest.raises(CorruptFileError, match=r"sha256 differs .* Rebuild it: make it") as error:
        read_sequences(tmp_path, "make it")
    assert "\n" not in str(error.value)
    cut = replace(found, levels=({}, *found.levels[1:]))
    write_sequences(tmp_path, [cut], {})
    with pytest.raises(CorruptFileError, match="a sequence of again has no start"):
        read_sequences(tmp_path, "make it")


def test_a_loss_that_is_not_finite_is_not_written(tmp_path):
    losses = StreamLosses("s", ({(): float("nan")},), np.array([3]))
    with pytest.raises(PonderTTTError, match="the loss of a sequence is not finite") as error:
        write_sequences(tmp_path, [losses], {})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
