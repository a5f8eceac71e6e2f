"""Suffix adaptation: SKIP is the backbone, an update goes through the suffix only, and frozen weights stay frozen."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jaxtyping import Array

from ponderttt.costs import count_flops
from ponderttt.errors import ConfigError, PonderTTTError
from ponderttt.fast_weights.base import Chunk, Readout
from ponderttt.fast_weights.suffix import Full, LowRank, SuffixAdapter
from ponderttt.models.backbone import random_backbone
from ponderttt.models.families import flops_per_token
from ponderttt.models.suffix import SuffixWeights, suffix_weights
from ponderttt.settings.fast_weights import SuffixConfig
from tiny_llama import tiny_llama
from tiny_streams import tree_close
from whole_suffix import run_suffix

MODEL = tiny_llama(vocab_size=61, layers=3)
TOKENS, REAL, VOCABULARY = 40, 33, MODEL.vocab_size
CONFIG = SuffixConfig(blocks=2, rank=4, inner_rate=1e-2, token_share=0.25)
TARGETS = ("lora", "down")


class World(NamedTuple):
    """Return a backbone split after its first block, and its frozen pass over two chunks; the second ends in padding."""

    unembedding: Array
    suffix: SuffixWeights
    chunks: list[Chunk]

    @property
    def readout(self) -> Readout:
        return Readout(self.unembedding, suffix=self.suffix)


@pytest.fixture(scope="module")
def world() -> World:
    backbone = random_backbone(MODEL, jax.random.key(0), 1)
    chunks = []
    for seed, real in ((0, TOKENS), (1, REAL)):
        tokens = np.random.default_rng(seed).integers(0, VOCABULARY, TOKENS + 1)
        # The last real token is an input without a target.
        inputs = np.where(np.arange(TOKENS) <= real, tokens[:-1], MODEL.pad_id)
        mask = np.arange(TOKENS) < real
        targets = jnp.asarray(np.where(mask, tokens[1:], MODEL.pad_id), jnp.int32)
        split = backbone.prefix(inputs[None])
        hidden = backbone.suffix(split, jnp.asarray(inputs[None] < VOCABULARY))[0]
        logits = jax.nn.log_softmax(hidden @ backbone.unembedding.T)
        nll = jnp.where(mask, -logits[jnp.arange(TOKENS), targets % VOCABULARY], 0.0)
        entropy = -jnp.sum(jnp.exp(logits) * logits, axis=-1)
        chunks.append(Chunk(hidden, targets, jnp.asarray(mask), entropy, nll, split[0]))
    return World(backbone.unembedding, suffix_weights(backbone), chunks)


def module_of(target: str, seed: int = 0, **settings: Any) -> SuffixAdapter:
    """Return an untrained module."""
    config = dataclasses.replace(CONFIG, target=target, **settings)
    return SuffixAdapter(MODEL.width, config, MODEL, rngs=nnx.Rngs(seed))


def awake(target: str, **settings: Any) -> SuffixAdapter:
    """Return a module whose zero matrix is random, as after training."""
    module = module_of(target, **settings)
    parameter = module.up if target == "lora" else module.delta
    scale = 0.1 if target == "lora" else 0.7
    parameter[...] = scale * jax.random.normal(jax.random.key(7), parameter[...].shape)
    return module


@functools.cache
def program(graph: Any, method: str, static: tuple[Any, ...]) -> Callable[..., Any]:
    """A method whose slow weights are an argument: modules of one shape share it."""
    return jax.jit(lambda slow, *arguments: getattr(nnx.merge(graph, slow), method)(*arguments, *static))


def compiled(module: SuffixAdapter, method: str, *static: Any) -> Callable[..., Any]:
    """Compile one method of a module as a program of fast weights, chunk, readout and other arguments."""
    graph, slow = nnx.split(module)
    return lambda *arguments: program(graph, method, static)(slow, *arguments)


@functools.partial(jax.jit, static_argnames="blocks")
def direct_nll(matrices: LowRank | Full, chunk: Chunk, world: World, blocks: int = 2) -> Array:
    """Return the loss of every token by the backbone's suffix with changed weights, without the shortcut."""
    if isinstance(matrices, Full):
        delta = MODEL.mlp_width**-0.5 * matrices.delta
    else:
        delta = jnp.einsum("LDR,LRF->LDF", matrices.up, matrices.down)
    down = world.suffix.blocks["mlp_down"].at[world.suffix.layers - blocks :].add(delta)
    changed = world.suffix._replace(blocks=world.suffix.blocks | {"mlp_down": down})
    hidden = run_suffix(MODEL, changed, chunk.split, jnp.ones(TOKENS, bool))
    logits = jax.nn.log_softmax(hidden @ world.unembedding.T)
    return jnp.where(chunk.mask, -logits[jnp.arange(TOKENS), chunk.targets % VOCABULARY], 0.0)


@jax.jit
def direct_loss_and_slope(matrices: LowRank | Full, chunk: Chunk, world: World) -> tuple[Array, Any]:
    """Return the mean loss of every fourth token and its gradient."""
    every_fourth = (jnp.arange(TOKENS) % 4 == 0) & chunk.mask
    return jax.value_and_grad(lambda m: jnp.mean(direct_nll(m, chunk, world), where=every_fourth))(matrices)


@pytest.mark.parametrize("target", TARGETS)
def test_skip_is_the_plain_backbone_before_training(target: str, world: World) -> None:
    module = module_of(target)
    score = compiled(module, "score")
    for chunk in world.chunks:
        np.testing.assert_allclose(score(module.reset(), chunk, world.readout), chunk.nll_frozen, atol=2e-5)


@pytest.mark.parametrize(("target", "blocks"), [("lora", 1), ("lora", 2), ("down", 2)])
def test_a_read_is_the_suffix_with_changed_down_projections(target: str, blocks: int, world: World) -> None:
    module = awake(target, blocks=blocks)
    fast, chunk, readout = module.reset(), world.chunks[1], world.readout
    expected = direct_nll(fast.descent.matrices, chunk, world, blocks)
    assert not np.allclose(expected, chunk.nll_frozen, atol=1e-2)
    np.testing.assert_allclose(compiled(module, "score")(fast, chunk, readout), expected, atol=2e-5)
    positions = jnp.asarray([0, 3, 31, 39])
    at = compiled(module, "score_positions")(fast, chunk, readout, positions)
    np.testing.assert_allclose(at, expected[positions], atol=2e-5)
    log_probabilities = compiled(module, "next_token")(fast, chunk, readout)
    real = np.flatnonzero(chunk.mask)
    np.testing.assert_allclose(
        -log_probabilities[real, chunk.targets[real]], expected[: len(real)], atol=2e-5
    )
    np.testing.assert_allclose(jnp.exp(log_probabilities).sum(-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_a_later_token_changes_nothing_before_it(target: str, world: World) -> None:
    module = awake(target)
    chunk = world.chunks[0]
    score = compiled(module, "score")
    before = score(module.reset(), chunk, world.readout)
    changed = chunk._replace(split=chunk.split.at[20].add(1.0), targets=chunk.targets.at[20].set(5))
    after = score(module.reset(), changed, world.readout)
    np.testing.assert_array_equal(before[:20], after[:20])
    assert not np.array_equal(before[20:], after[20:])


def test_padding_is_no_context_and_no_lesson(world: World) -> None:
    module, chunk = awake("lora"), world.chunks[1]
    dirty = chunk._replace(
        split=chunk.split.at[REAL + 1 :].set(9.0),
        targets=chunk.targets.at[REAL:].set(3),
        hidden=0 * chunk.hidden,
    )
    score, adapt = compiled(module, "score"), compiled(module, "adapt", 1)
    fast = module.reset()
    np.testing.assert_array_equal(score(fast, chunk, world.readout), score(fast, dirty, world.readout))
    clean = adapt(fast, chunk, world.readout)
    assert jax.tree.all(
        jax.tree.map(
            np.array_equal,
            clean.fast.descent.matrices,
            adapt(fast, dirty, world.readout).fast.descent.matrices,
        )
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_update_k_is_k_adam_steps_on_the_loss_of_every_fourth_token(
    target: str, steps: int, world: World
) -> None:
    module, chunk = awake(target), world.chunks[1]
    matrices = start = module.reset().descent.matrices
    optimiser = optax.chain(optax.clip_by_global_norm(CONFIG.clip_norm), optax.scale_by_adam())
    state = optimiser.init(matrices)
    # A's rate is relative to its initial scale, F^-½.
    down_rate = MODEL.mlp_width**-0.5 * CONFIG.inner_rate
    rates = (down_rate, CONFIG.inner_rate) if target == "lora" else (CONFIG.inner_rate,)
    first, _ = direct_loss_and_slope(matrices, chunk, world)
    for _ in range(steps):
        directions, state = optimiser.update(direct_loss_and_slope(matrices, chunk, world)[1], state)
        moved = [m - rate * d for m, rate, d in zip(matrices, rates, directions, strict=True)]
        matrices = type(matrices)(*moved)
    adapted = compiled(module, "adapt", steps)(module.reset(), chunk, world.readout)
    for begin, right, mine in zip(
        *map(jax.tree.leaves, (start, matrices, adapted.fast.descent.matrices)), strict=True
    ):
        # Adam divides by the size of a gradient, so updates of the smallest ones are mostly rounding.
        assert float(jnp.linalg.norm(right - mine)) < 0.02 * float(jnp.linalg.norm(right - begin))
    np.testing.assert_allclose(adapted.inner_loss, first, atol=1e-5)
    assert int(adapted.steps) == steps


@pytest.mark.parametrize("target", TARGETS)
def test_the_optimiser_state_is_carried_from_chunk_to_chunk(target: str, world: World) -> None:
    module, chunk, readout = awake(target), world.chunks[0], world.readout
    one, two = compiled(module, "adapt", 1), compiled(module, "adapt", 2)
    once = one(module.reset(), chunk, readout).fast
    twice = one(once, chunk, readout).fast
    assert tree_close(twice, two(module.reset(), chunk, readout).fast, 1e-4)
    forgetful = once._replace(descent=once.descent._replace(optimiser=module.reset().descent.optimiser))
    assert not tree_close(one(forgetful, chunk, readout).fast.descent.matrices, twice.descent.matrices, 1e-4)


@pytest.mark.parametrize("target", TARGETS)
def test_a_chunk_that_comes_again_gets_cheaper_each_time(target: str, world: World) -> None:
    module, chunk = module_of(target), world.chunks[0]
    score, adapt = compiled(module, "score"), compiled(module, "adapt", 4)
    fast, losses = module.reset(), []
    for _ in range(5):
        losses.append(float(score(fast, chunk, world.readout)[::4].mean()))
        fast = adapt(fast, chunk, world.readout).fast
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("target", TARGETS)
def test_every_slow_weight_has_a_gradient_through_score_adapt_score(target: str, world: World) -> None:
    graph, slow = nnx.split(awake(target))
    positions = jnp.arange(0, TOKENS, 3)

    def window(state: Any) -> Array:
        module = nnx.merge(graph, state)
        fast = module.reset()
        first = module.score_positions(fast, world.chunks[0], world.readout, positions)
        fast = module.adapt(fast, world.chunks[0], world.readout, 2).fast
        return jnp.sum(first) + jnp.sum(module.score(fast, world.chunks[1], world.readout))

    for path, gradient in nnx.to_flat_state(jax.jit(jax.grad(window))(slow)):
        # Each block and each kind of matrix alone.
        for part in gradient[...]:
            assert np.all(np.isfinite(part)), path
            assert float(jnp.abs(part).sum()) > 0, path


@pytest.mark.parametrize("target", TARGETS)
def test_streams_side_by_side_are_each_for_itself(target: str, world: World) -> None:
    module = awake(target)
    graph, slow = nnx.split(module)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *world.chunks)
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), module.reset())

    def one(fast: Any, chunk: Chunk, readout: Readout) -> Array:
        inside = nnx.merge(graph, slow)
        return inside.score(inside.adapt(fast, chunk, readout, 2).fast, chunk, readout)

    together = jax.jit(jax.vmap(one, in_axes=(0, 0, None)))(two, both, world.readout)
    for found, chunk in zip(together, world.chunks, strict=True):
        after = compiled(module, "adapt", 2)(module.reset(), chunk, world.readout).fast
        alone = compiled(module, "score")(after, chunk, world.readout)
        np.testing.assert_allclose(found, alone, atol=1e-3)
        assert not np.allclose(
            alone, compiled(module, "score")(module.reset(), chunk, world.readout), atol=1e-2
        )


@pytest.mark.parametrize("target", TARGETS)
def test_the_frozen_weights_keep_every_bit(target: str, world: World) -> None:
    def bits() -> list[bytes]:
        return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((world.unembedding, world.suffix))]

    before = bits()
    module = awake(target)
    adapted = compiled(module, "adapt", 2)(module.reset(), world.chunks[0], world.readout)
    compiled(module, "score")(adapted.fast, world.chunks[0], world.readout)
    assert bits() == before
    # They are not part of the module either, so training cannot change them.
    frozen = {stack.shape for stack in world.suffix.blocks.values()} - {(2, MODEL.width, MODEL.mlp_width)}
    assert not frozen & {leaf.shape for leaf in jax.tree.leaves(nnx.state(module))}


def test_a_flipped_update_goes_the_other_way_and_keeps_the_moments(world: World) -> None:
    module = awake("lora")
    before = module.reset()
    after = compiled(module, "adapt", 1)(before, world.chunks[0], world.readout).fast
    flipped = module.flipped(before, after)
    middle = jax.tree.map(lambda a, b: (a + b) / 2, flipped.descent.matrices, after.descent.matrices)
    assert tree_close(middle, before.descent.matrices, 1e-6)
    assert flipped.descent.optimiser is after.descent.optimiser


def test_blocks_that_are_not_adapted_are_run_as_they_are(world: World) -> None:
    module = module_of("lora", blocks=1)
    assert module.reset().descent.matrices.down.shape == (1, CONFIG.rank, MODEL.mlp_width)
    nll = compiled(module, "score")(module.reset(), world.chunks[0], world.readout)
    np.testing.assert_allclose(nll, world.chunks[0].nll_frozen, atol=2e-5)


def test_more_adapted_blocks_than_there_are_after_the_split_are_refused(world: World) -> None:
    module = module_of("lora", blocks=3)
    with pytest.raises(PonderTTTError, match=r"leaves 2 after it; set split_layer to 0 or less"):
        module.score(module.reset(), world.chunks[0], world.readout)


def test_cost_follows_what_is_calculated(world: World) -> None:
    def update(module: SuffixAdapter, steps: int) -> int:
        return count_flops(
            lambda f, c, r: module.adapt(f, c, r, steps).fast, module.reset(), world.chunks[0], world.readout
        )

    quarter, whole = module_of("lora"), module_of("lora", token_share=1.0)
    assert update(quarter, 1) < 0.75 * update(whole, 1)
    # The first block up to its down-projection runs once for all steps.
    assert 2 * update(quarter, 1) < update(quarter, 4) < 3.5 * update(quarter, 1)
    assert update(quarter, 4) - update(quarter, 2) == pytest.approx(
        2 * (update(quarter, 2) - update(quarter, 1)), rel=1e-6
    )
    score = count_flops(
        lambda f, c, r: quarter.score(f, c, r), quarter.reset(), world.chunks[0], world.readout
    )
    blocks = 2 * TOKENS * flops_per_token(MODEL, unembed=False) / MODEL.layers
    projection = 2 * TOKENS * MODEL.width * VOCABULARY
    assert blocks + projection < score < 1.6 * (blocks + projection)


@pytest.mark.parametrize(
    "bad", [{"blocks": 0}, {"rank": 0}, {"token_share": 0.0}, {"token_share": 1.5}, {"inner_rate": 0.0}]
)
def test_settings_that_mean_nothing_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^{next(iter(bad))} must be "):
        SuffixConfig(**bad)
