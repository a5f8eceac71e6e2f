"""Controls learn from what they say, and the corpora that go with them are what they say."""

from __future__ import annotations

from operator import attrgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.corpus.controls import random_tokens as uniform_tokens
from ponderttt.corpus.controls import repeated
from ponderttt.corpus.streams import Stream
from ponderttt.errors import PonderTTTError
from ponderttt.fast_weights.base import Chunk, as_chunk
from ponderttt.loop.controls import donor_of, shuffle_chunk
from ponderttt.loop.methods import Spending, arm_of
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.stream import run_streams
from ponderttt.names import KINDS, MethodName
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.settings.rules import RulesConfig
from tiny_streams import awake, fresh, make_stream, random_tokens, suffix_block

SPENDING = Spending(3.0, NOMINAL_COSTS, RulesConfig())


def batch(streams, t: int) -> Chunk:
    return as_chunk({name: np.stack([getattr(s, name)[t] for s in streams]) for name in Chunk._fields})


def test_a_shuffled_chunk_holds_the_same_states_and_labels_in_other_places():
    streams = [make_stream("a", random_tokens(1, 1), last=20), make_stream("b", random_tokens(2, 1))]
    chunk = batch(streams, 0)
    other, rows = shuffle_chunk(chunk, [3, 4])
    assert np.array_equal(other.mask, chunk.mask)
    for b, real in enumerate((20, 48)):
        assert sorted(rows[b, :real]) == list(range(real))
        assert np.array_equal(rows[b, real:], np.arange(real, 48))
        np.testing.assert_array_equal(other.hidden[b], chunk.hidden[b][rows[b]])
        assert sorted(other.targets[b, :real].tolist()) == sorted(chunk.targets[b, :real].tolist())
        # Labels went their own way.
        assert not np.array_equal(other.targets[b], chunk.targets[b][rows[b]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_update_undoes_what_the_update_would_have_done(kind):
    """Midway between the weights after the update and after the flipped one lie those before."""
    module = awake(kind)
    stream = make_stream("a", random_tokens(1, 2))
    programs = ModulePrograms(module)
    page = Group([stream], jnp.zeros((64, 32)), suffix_block()).page(0)
    before = jax.tree.map(lambda leaf: leaf[None], module.reset())
    from ponderttt.actions import Action

    ran = programs.adapt[Action.UPDATE_1](
        programs.slow, before, page.chunk(programs), page.readout(programs)
    ).value
    flipped = programs.flipped(before, ran.fast)
    moving = {"ttt": "weight", "lora": "matrices", "suffix": "descent.matrices", "memory": "keys"}[kind]
    for b, a, f in zip(
        *(jax.tree.leaves(attrgetter(moving)(x)) for x in (before, ran.fast, flipped)), strict=True
    ):
        np.testing.assert_allclose((np.asarray(a) + np.asarray(f)) / 2, b, atol=1e-5)
        assert np.isfinite(f).all()


def losses_on_a_repeat(kind: str, unembedding, methods: list[str]) -> dict[str, float]:
    """Mean loss from the second chunk on, where a chunk of noise is read four times."""
    once = random_tokens(4, 1)[:-1]
    stream = make_stream("again", np.concatenate([np.tile(once, 4), once[:1]]))
    other = make_stream("other", random_tokens(9, 4))
    arms = [arm_of(MethodName(m), PROGRAMS[kind], SPENDING, 0) for m in methods]
    steps = run_streams(arms, Group([stream], unembedding, suffix_block(), [other]))
    return {m: float(np.mean([s.loss for s in rows[1:]])) for m, rows in steps.items()}


PROGRAMS = {kind: ModulePrograms(fresh(kind)) for kind in ("lora", "suffix", "memory")}


@pytest.mark.parametrize("kind", ["lora", "suffix", "memory"])
def test_learning_from_the_wrong_thing_gains_nothing_where_the_right_thing_gains(kind, unembedding):
    loss = losses_on_a_repeat(
        kind, unembedding, ["skip", "update_1", "shuffled", "sign_flipped", "other_stream"]
    )
    gain = loss["skip"] - loss["update_1"]
    assert gain > 0.01
    for control in ("shuffled", "sign_flipped", "other_stream"):
        assert loss["skip"] - loss[control] < 0.5 * gain, control


def test_a_lone_stream_has_no_other():
    stream = make_stream("a", random_tokens(1, 1))
    with pytest.raises(PonderTTTError, match="at least two streams"):
        donor_of([stream], 0)


def test_random_tokens_are_uniform_and_the_same_each_time():
    tokens = uniform_tokens(0, 50_000, 64)
    assert np.array_equal(tokens, uniform_tokens(0, 50_000, 64))
    assert not np.array_equal(tokens, uniform_tokens(1, 50_000, 64))
    counts = np.bincount(tokens, minlength=64)
    # Binomial: 781 expected, standard deviation 28.
    assert len(counts) == 64
    assert abs(counts - 50_000 / 64).max() < 5 * 28


def test_a_repeated_stream_reads_its_first_chunk_again_and_again():
    ids = np.arange(8, dtype=np.int32).reshape(2, 4)
    starts = np.zeros(1, np.int32)
    stream = Stream("s", "Python", ids, ids + 1, np.ones((2, 4), bool), np.ones(2, np.int32), starts, ("a",))
    assert repeated(stream, 3).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0]
