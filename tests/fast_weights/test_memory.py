"""Memory stores the most surprising pairs, reads them back, and stores nothing of a chunk before it is scored."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ponderttt.costs import count_flops
from ponderttt.errors import ConfigError
from ponderttt.fast_weights.base import Chunk, Readout
from ponderttt.fast_weights.memory import Memory, MemoryFast
from ponderttt.files.parameters import parameters
from ponderttt.settings.fast_weights import MemoryConfig
from tiny_streams import CHUNK, VOCABULARY, WIDTH

#: A memory is read without the vocabulary.
NOTHING = Readout(jnp.zeros((1, 1)))


@nnx.jit
def score(module: Memory, fast: MemoryFast, chunk: Chunk) -> jax.Array:
    return module.score(fast, chunk, NOTHING)


@partial(nnx.jit, static_argnums=3)
def store(module: Memory, fast: MemoryFast, chunk: Chunk, steps: int = 4) -> MemoryFast:
    return module.adapt(fast, chunk, NOTHING, steps).fast


def make(width: int, capacity: int, **start: float) -> Memory:
    return Memory(width, MemoryConfig(capacity=capacity, **start), rngs=nnx.Rngs(0))


def make_chunk(hidden, targets, nll=None, entropy=None, mask=None) -> Chunk:
    length = len(targets)
    mask = np.ones(length, bool) if mask is None else np.asarray(mask)
    return Chunk(
        hidden=jnp.asarray(hidden, jnp.float32),
        targets=jnp.asarray(targets, jnp.int32),
        mask=jnp.asarray(mask),
        entropy=jnp.zeros(length) if entropy is None else jnp.asarray(entropy, jnp.float32),
        nll_frozen=jnp.ones(length) if nll is None else jnp.asarray(nll, jnp.float32),
    )


def random_chunk(seed: int, unembedding=None, length: int = CHUNK) -> Chunk:
    """Draw a chunk of random states, with losses and entropies of the frozen model if one is given."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(length, WIDTH)).astype(np.float32) + 1.0
    targets = rng.integers(0, VOCABULARY, length)
    if unembedding is None:
        return make_chunk(hidden, targets, rng.random(length) * 8, rng.random(length) * 4)
    logs = jax.nn.log_softmax(jnp.asarray(hidden) @ unembedding.T)
    entropy = -jnp.sum(jnp.exp(logs) * logs, -1)
    return make_chunk(hidden, targets, -logs[jnp.arange(length), targets], entropy)


@pytest.fixture(scope="module")
def module() -> Memory:
    """Return a memory of four chunks, prepared as before training, that reads softly enough for every pair to count."""
    module = make(WIDTH, 4 * CHUNK, inverse_temperature=4.0, mixing_weight=0.3, mixing_similarity=2.0)
    module.prepare(np.concatenate([np.asarray(random_chunk(s).hidden) for s in (7, 8)]) * 2.0)
    return module


@pytest.fixture(scope="module")
def full(module) -> MemoryFast:
    """Return fast weights after one chunk in full and half of another."""
    fast = store(module, module.reset(), random_chunk(0))
    return store(module, fast, random_chunk(1), 2)


def brute_force(module: Memory, fast: MemoryFast, chunk: Chunk) -> tuple[np.ndarray, np.ndarray]:
    """Compute loss and reconstruction error of each token, pair by pair in float64."""
    slow = {name: np.asarray(value, np.float64) for name, value in parameters(module).items()}
    stored = min(int(fast.written), module.config.capacity)
    keys, values = np.asarray(fast.keys[:stored], np.float64), np.asarray(fast.values[:stored])
    losses, errors = [], []
    for hidden, target, _, entropy, nll in zip(
        *(np.asarray(field, np.float64) for field in chunk[:5]), strict=True
    ):
        query = (hidden - slow["centre"]) * np.exp(slow["log_scale"])
        query /= np.sqrt(np.sum(query**2))
        near = [float(query @ key) for key in keys]
        weights = [math.exp(math.exp(slow["log_inverse_temperature"]) * s) for s in near]
        weights = [w / sum(weights) for w in weights]
        memory = sum(w for w, value in zip(weights, values, strict=True) if value == target)
        logit = slow["mixing_logit"] + slow["mixing_entropy"] * (entropy - 2)
        logit += 10 * slow["mixing_similarity"] * (max(near) - 0.6)
        share = 1 / (1 + math.exp(-logit))
        losses.append(-math.log((1 - share) * math.exp(-nll) + share * memory))
        errors.append(np.sum((query - sum(w * key for w, key in zip(weights, keys, strict=True))) ** 2))
    return np.array(losses), np.array(errors)


def test_a_read_worked_by_hand():
    """Similarities 1, 0, −1 at inverse temperature ln 2 weigh 4 : 2 : 1; similarity 1 makes even odds three to one."""
    module = make(
        2,
        3,
        inverse_temperature=math.log(2),
        mixing_weight=0.5,
        mixing_similarity=math.log(3) / 0.4,
        mixing_entropy=0.0,
    )
    fast = store(module, module.reset(), make_chunk([[2, 0], [0, 1], [-3, 0]], [5, 7, 5]))
    queries = make_chunk([[1, 0]] * 3, [5, 7, 6], nll=[math.log(4)] * 3)
    expected = [0.25 / 4 + 0.75 * 5 / 7, 0.25 / 4 + 0.75 * 2 / 7, 0.25 / 4]
    assert np.allclose(np.exp(-score(module, fast, queries)), expected, rtol=1e-5)


def test_uncertainty_of_the_frozen_model_raises_the_weight_as_worked_by_hand():
    module = make(2, 1, mixing_weight=0.5, mixing_similarity=0.0, mixing_entropy=1.0)
    fast = store(module, module.reset(), make_chunk([[1, 0]], [5]))
    queries = make_chunk([[1, 0]] * 2, [5, 5], nll=[math.log(4)] * 2, entropy=[2.0, 2.0 + math.log(3)])
    assert np.allclose(np.exp(-score(module, fast, queries)), [0.5 / 4 + 0.5, 0.25 / 4 + 0.75], rtol=1e-5)


def test_reads_and_reconstruction_equal_a_brute_force_reference(module, full):
    chunk = random_chunk(2)
    # Half of the targets are stored with a similar state.
    chunk = chunk._replace(targets=chunk.targets.at[::2].set(full.values[: CHUNK // 2]))
    losses, errors = brute_force(module, full, chunk)
    assert np.allclose(score(module, full, chunk), losses, rtol=2e-5)
    assert np.isclose(module.reconstruction(full, chunk), errors.mean(), rtol=2e-5)


def test_keys_are_standardised_as_training_states_were(module):
    hidden = np.random.default_rng(4).normal(3.0, np.arange(1, WIDTH + 1), (50, WIDTH)).astype(np.float32)
    other = make(WIDTH, CHUNK)
    other.prepare(hidden)
    keys = store(other, other.reset(), make_chunk(hidden[:CHUNK], range(CHUNK))).keys
    standard = (hidden - hidden.mean(0)) / hidden.std(0)
    standard /= np.linalg.norm(standard, axis=1, keepdims=True)
    assert np.allclose(keys, standard[:CHUNK], atol=1e-5)


def test_an_empty_memory_gives_the_frozen_losses_bit_for_bit(module):
    chunk = random_chunk(3)
    assert np.array_equal(score(module, module.reset(), chunk), chunk.nll_frozen)


def test_an_empty_memory_gives_the_frozen_distribution(module, unembedding):
    chunk = random_chunk(3, unembedding)
    logs = module.next_token(module.reset(), chunk, Readout(unembedding))
    assert np.array_equal(logs, jax.nn.log_softmax(chunk.hidden @ unembedding.T))


def test_the_ring_overwrites_the_oldest_as_worked_by_hand():
    module = make(2, 4, mixing_weight=0.5, mixing_similarity=0.0, mixing_entropy=0.0)
    first = store(module, module.reset(), make_chunk([[1, 0], [0, 1], [-1, 0]], [11, 12, 13]))
    assert list(first.values) == [11, 12, 13, 0]
    second = store(module, first, make_chunk([[0, -1], [1, 0], [0, 1]], [14, 15, 16]))
    assert list(second.values) == [15, 16, 13, 14]
    assert np.allclose(second.keys, [[1, 0], [0, 1], [-1, 0], [0, -1]])
    assert int(second.written) == 6
    queries = make_chunk([[1, 0], [1, 0]], [11, 15], nll=[1.0, 1.0])
    before, after = (score(module, fast, queries) for fast in (first, second))
    assert before[0] < 1 < before[1]
    # Only the model's half of the mixture is left for the overwritten pair.
    assert np.isclose(after[0], 1 + math.log(2), rtol=1e-5)
    assert after[1] < 1


def test_the_store_is_bounded_and_holds_the_latest():
    module = make(WIDTH, CHUNK + 5)
    fast = module.reset()
    for seed in range(5):
        chunk = random_chunk(seed)
        fast = store(module, fast, chunk)
    assert fast.keys.shape == (CHUNK + 5, WIDTH)
    last = np.asarray(random_chunk(3).targets)[-5:].tolist() + np.asarray(random_chunk(4).targets).tolist()
    assert sorted(fast.values.tolist()) == sorted(last)


def test_a_memory_smaller_than_a_chunk_keeps_its_most_surprising():
    module = make(2, 2)
    chunk = make_chunk([[1, 0]] * 4, [1, 2, 3, 4], nll=[5, 1, 2, 4])
    assert list(store(module, module.reset(), chunk).values) == [1, 4]


SHARES = {
    steps: jax.jit(lambda chunk, steps=steps: SMALL.adapt(SMALL.reset(), chunk, NOTHING, steps))
    for steps in (1, 2, 4)
}
SMALL = make(2, 16)


@pytest.mark.parametrize(
    ("steps", "values"), [(1, [12, 17]), (2, [10, 12, 15, 17]), (4, list(range(10, 18)))]
)
def test_an_update_stores_its_share_most_surprising_first_in_order(steps, values):
    chunk = make_chunk([[1, 0]] * 8, range(10, 18), nll=[4, 1, 7, 2, 0, 5, 3, 9])
    adapted = SHARES[steps](chunk)
    assert adapted.fast.values[: len(values)].tolist() == values
    assert int(adapted.fast.written) == len(values)
    assert int(adapted.steps) == steps


@settings(max_examples=40, deadline=None)
@given(
    mask=st.lists(st.booleans(), min_size=8, max_size=8),
    nll=st.lists(st.integers(0, 5), min_size=8, max_size=8),
    steps=st.sampled_from([1, 2, 4]),
)
def test_exactly_the_share_of_real_tokens_is_stored_and_none_that_surprises_less(mask, nll, steps):
    """Masked tokens are never stored, not even those that would surprise most."""
    surprise = np.where(mask, nll, 99)
    fast = SHARES[steps](make_chunk([[1, 0]] * 8, range(8), nll=surprise, mask=mask)).fast
    stored = fast.values[: int(fast.written)].tolist()
    real = np.flatnonzero(mask)
    assert len(stored) == math.ceil(steps * len(real) / 4)
    assert stored == sorted(set(stored))
    left = set(real) - set(stored)
    assert set(stored) <= set(real)
    assert not stored or not left or min(surprise[stored]) >= max(surprise[list(left)])
    assert not np.asarray(fast.keys)[len(stored) :].any()


def test_the_inner_loss_is_the_frozen_loss_of_what_was_stored():
    chunk = make_chunk([[1, 0]] * 8, range(8), nll=[4, 1, 7, 2, 0, 5, 3, 9])
    assert np.isclose(SHARES[1](chunk).inner_loss, 8.0)


def test_masked_tokens_have_no_loss(module, full):
    chunk = random_chunk(2)
    masked = chunk._replace(mask=chunk.mask.at[-10:].set(False))
    nll = score(module, full, masked)
    assert not nll[-10:].any()
    assert np.array_equal(nll[:-10], score(module, full, chunk)[:-10])


def test_a_later_token_of_the_chunk_changes_no_earlier_loss(module, full):
    chunk = random_chunk(2)
    later = chunk._replace(
        hidden=chunk.hidden.at[20:].add(1.0),
        targets=chunk.targets.at[20:].set(0),
        nll_frozen=chunk.nll_frozen.at[20:].add(1.0),
        entropy=chunk.entropy.at[20:].add(1.0),
    )
    before, after = (score(module, full, c) for c in (chunk, later))
    assert np.array_equal(before[:20], after[:20])
    assert not np.array_equal(before[20:], after[20:])


def test_the_whole_distribution_sums_to_one_and_agrees_with_the_losses(module, full, unembedding):
    chunk = random_chunk(2, unembedding)
    logs = np.asarray(module.next_token(full, chunk, Readout(unembedding)))
    assert np.allclose(np.exp(logs).sum(-1), 1.0, atol=1e-5)
    assert np.allclose(-logs[np.arange(CHUNK), chunk.targets], score(module, full, chunk), atol=1e-4)


def test_the_distribution_does_not_look_at_the_targets(module, full, unembedding):
    chunk = random_chunk(2, unembedding)
    blind = chunk._replace(
        targets=jnp.zeros_like(chunk.targets), nll_frozen=jnp.zeros(CHUNK), entropy=jnp.zeros(CHUNK)
    )
    readout = Readout(unembedding)
    assert np.array_equal(module.next_token(full, chunk, readout), module.next_token(full, blind, readout))


def test_some_positions_are_scored_as_in_the_whole(module, full):
    chunk, positions = random_chunk(2), jnp.array([3, 4, 20, 47])
    some = module.score_positions(full, chunk, NOTHING, positions)
    assert np.allclose(some, score(module, full, chunk)[positions], rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_what_was_stored_of_a_chunk_is_cheap_when_it_comes_again(steps, unembedding):
    module, chunk = make(WIDTH, CHUNK), random_chunk(5, unembedding)
    after = score(module, store(module, module.reset(), chunk, steps), chunk)
    surprise = np.argsort(-np.asarray(chunk.nll_frozen))
    stored, left = surprise[: CHUNK * steps // 4], surprise[CHUNK * steps // 4 :]
    assert chunk.nll_frozen[stored].mean() > 7
    assert after[stored].mean() < 1
    # Tokens that were not stored lose a little to the mixture.
    assert np.all(after[left] - chunk.nll_frozen[left] < 0.5)


def test_random_tokens_gain_nothing():
    """The frozen model knows the frequency of random tokens, so a mixture can only lose."""
    length = 1000
    rng = np.random.default_rng(6)
    memory = make(WIDTH, length)
    hidden, targets = rng.normal(size=(2, length, WIDTH)), rng.integers(0, VOCABULARY, (2, length))
    first, second = (
        make_chunk(h, t, nll=np.full(length, math.log(VOCABULARY)))
        for h, t in zip(hidden, targets, strict=True)
    )
    fast = store(memory, memory.reset(), first)
    for module in (memory, make(WIDTH, length, mixing_weight=0.1, mixing_similarity=0.0)):
        gains = np.asarray(second.nll_frozen - score(module, fast, second))
        assert gains.mean() < 2 * gains.std() / math.sqrt(length)
        assert gains.std() > 0


def test_an_empty_memory_reconstructs_nothing_and_a_sharp_one_what_it_holds(module):
    chunk = random_chunk(2)
    sharp = make(WIDTH, CHUNK, inverse_temperature=100.0)
    assert np.isclose(module.reconstruction(module.reset(), chunk), 1.0, rtol=1e-5)
    stored = store(sharp, sharp.reset(), chunk)
    assert sharp.reconstruction(stored, chunk) < 1e-3


def test_an_empty_memory_has_numbers_where_the_compiler_fuses_products_with_sums():
    """Empty slots must not leave the rounding error of a huge number in the softmax, whose exponential is infinite."""

    def errors(slow: nnx.State, chunks: Chunk) -> jax.Array:
        def read(carry: None, chunk: Chunk) -> tuple[None, jax.Array]:
            memory = nnx.merge(graph, slow)
            return carry, memory.reconstruction(memory.reset(), chunk)

        return jax.lax.scan(read, None, chunks)[1]

    # A temperature whose product with a power of ten is rounded, and too many slots for the loop to be unrolled.
    graph, slow = nnx.split(make(WIDTH, 128, inverse_temperature=7.3))
    chunks = jax.tree.map(lambda field: jnp.stack([field] * 3), random_chunk(2))
    hurried = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
    for options in ({}, hurried):
        program = jax.jit(errors, compiler_options=options)
        np.testing.assert_allclose(program(slow, chunks), 1.0, rtol=1e-6, err_msg=str(options))


def test_padding_is_not_reconstructed(module, full):
    chunk = random_chunk(2)
    mask = chunk.mask.at[-10:].set(False)
    dirty = chunk._replace(mask=mask, hidden=chunk.hidden.at[-10:].set(50.0))
    errors = [module.reconstruction(full, c) for c in (chunk._replace(mask=mask), dirty)]
    assert np.isclose(*errors, rtol=1e-6)


def test_every_slow_weight_has_a_gradient_and_an_empty_memory_gives_none(module, full):
    graph, slow = nnx.split(module)
    chunk = random_chunk(2)

    def loss(slow, fast):
        return jnp.mean(nnx.merge(graph, slow).score(fast, chunk, NOTHING))

    gradient = jax.jit(jax.grad(loss))
    assert all(
        bool(jnp.all(leaf != 0)) and bool(jnp.isfinite(leaf).all())
        for leaf in jax.tree.leaves(gradient(slow, full))
    )
    assert not any(bool(leaf.any()) for leaf in jax.tree.leaves(gradient(slow, module.reset())))


def test_streams_side_by_side_do_not_mix(module, full):
    chunks = [random_chunk(2), random_chunk(3)]
    fasts = [full, store(module, module.reset(), random_chunk(4), 1)]

    def both(fast, chunk):
        return module.score(fast, chunk, NOTHING), module.adapt(fast, chunk, NOTHING, 2).fast

    stacked = jax.jit(jax.vmap(both))(
        *(jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) for trees in (fasts, chunks))
    )
    for i in range(2):
        nll, after = score(module, fasts[i], chunks[i]), store(module, fasts[i], chunks[i], 2)
        assert np.allclose(stacked[0][i], nll, atol=1e-5)
        assert np.array_equal(stacked[1].values[i], after.values)
        assert np.allclose(stacked[1].keys[i], after.keys, atol=1e-6)
        assert int(stacked[1].written[i]) == int(after.written)


def test_the_flipped_update_negates_the_new_keys_and_leaves_the_old():
    module = make(2, 4)
    first = store(module, module.reset(), make_chunk([[1, 0], [0, 1], [-1, 0]], [11, 12, 13]))
    second = store(module, first, make_chunk([[0, -1], [1, 0]], [14, 15]))
    flipped = module.flipped(first, second)
    assert np.allclose(flipped.keys, [[-1, 0], [0, 1], [-1, 0], [0, 1]])
    assert list(flipped.values) == [15, 12, 13, 14]
    assert int(flipped.written) == 5
    again = module.flipped(module.reset(), first)
    assert np.allclose(again.keys[:3], -first.keys[:3])


def test_the_cost_of_a_read_is_that_of_its_similarities_and_an_update_costs_little():
    module, chunk = make(WIDTH, 4 * CHUNK), random_chunk(2)
    product = 2 * CHUNK * 4 * CHUNK * WIDTH
    read = count_flops(lambda c: module.score(module.reset(), c, NOTHING), chunk)
    assert product < read < 1.6 * product
    updates = [
        count_flops(lambda c, s=s: module.adapt(module.reset(), c, NOTHING, s), chunk) for s in (1, 2, 4)
    ]
    assert updates == sorted(updates)
    assert updates[-1] < 0.05 * product


@pytest.mark.parametrize(
    ("key", "value"), [("capacity", 0), ("inverse_temperature", 0.0), ("mixing_weight", 1.0)]
)
def test_a_memory_that_could_hold_or_find_nothing_is_refused(key, value):
    with pytest.raises(ConfigError, match=rf"^{key} must be "):
        MemoryConfig(**{key: value})
