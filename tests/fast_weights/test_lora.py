"""LoRA: its shortcut through the frozen logits is exact, and an update uses the chosen tokens only."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from ponderttt.fast_weights.base import Chunk, Readout
from ponderttt.fast_weights.gradient_steps import Descent
from ponderttt.fast_weights.lora import LoRA, LoRAMatrices
from ponderttt.models.losses import frozen_logits
from tiny_streams import CHUNK, TINY, WIDTH, tree_close


@pytest.fixture(scope="module")
def chunk(streams):
    return Chunk(*(jnp.asarray(getattr(streams[0], name)[0]) for name in Chunk._fields))


@pytest.fixture(scope="module")
def readout(chunk, unembedding):
    return Readout(unembedding, frozen_logits(chunk.hidden, unembedding))


def direct_loss(matrices: LoRAMatrices, chunk: Chunk, unembedding, positions) -> jax.Array:
    """Return the loss without the shortcut."""
    hidden = chunk.hidden[positions]
    logits = (hidden + hidden @ matrices.down.T @ matrices.up.T) @ unembedding.T
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(positions)), chunk.targets[positions]])


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_update_k_is_k_adam_steps_on_the_direct_loss(awake_modules, chunk, readout, unembedding, steps):
    module = awake_modules["lora"]
    positions = module.chosen_tokens(chunk)
    matrices = module.reset().matrices
    optimiser = optax.adam(TINY.lora.inner_rate)
    state = optimiser.init(matrices)
    for _ in range(steps):
        gradients = jax.grad(direct_loss)(matrices, chunk, unembedding, positions)
        scale = jnp.minimum(1.0, TINY.lora.clip_norm / optax.tree.norm(gradients))
        gradients = jax.tree.map(lambda g, scale=scale: g * scale, gradients)
        updates, state = optimiser.update(gradients, state)
        matrices = optax.apply_updates(matrices, updates)
    adapted = module.adapt(module.reset(), chunk, readout, steps)
    assert tree_close(adapted.fast.matrices, matrices, 1e-4)
    assert int(adapted.steps) == steps


def test_an_update_sees_the_most_uncertain_quarter_and_nothing_else(awake_modules, chunk, unembedding):
    module = awake_modules["lora"]
    chosen = np.asarray(module.chosen_tokens(chunk))
    assert len(chosen) == round(TINY.lora.token_share * CHUNK)
    assert set(chosen) == set(np.argsort(-np.asarray(chunk.entropy))[: len(chosen)])
    others = np.setdiff1d(np.arange(CHUNK), chosen)
    changed = chunk._replace(targets=chunk.targets.at[others].set(0), hidden=chunk.hidden.at[others].add(1.0))
    results = [
        module.adapt(module.reset(), c, Readout(unembedding, frozen_logits(c.hidden, unembedding)), 2).fast
        for c in (chunk, changed)
    ]
    assert np.array_equal(results[0].matrices.up, results[1].matrices.up)


def test_an_even_choice_is_spread_over_the_chunk_whatever_the_model_thinks(chunk):
    config = dataclasses.replace(TINY.lora, token_choice="even")
    module = LoRA(WIDTH, config, rngs=nnx.Rngs(0))
    assert list(module.chosen_tokens(chunk)) == list(range(0, CHUNK, 4))


def test_masked_tokens_are_not_chosen_while_real_ones_are_left(awake_modules, chunk):
    mask = jnp.arange(CHUNK) >= CHUNK // 2
    chosen = awake_modules["lora"].chosen_tokens(chunk._replace(mask=mask))
    assert bool(mask[chosen].all())


def test_a_chunk_with_fewer_real_tokens_than_the_share_learns_from_the_real_ones(
    awake_modules, chunk, readout
):
    module = awake_modules["lora"]
    mask = jnp.arange(CHUNK) < 3
    clean = module.adapt(module.reset(), chunk._replace(mask=mask), readout, 1)
    dirty = chunk._replace(mask=mask, targets=chunk.targets.at[3:].set(0))
    assert np.array_equal(
        clean.fast.matrices.up, module.adapt(module.reset(), dirty, readout, 1).fast.matrices.up
    )
    assert np.isfinite(clean.inner_loss)


def test_the_optimiser_state_is_carried_from_chunk_to_chunk(awake_modules, chunk, readout):
    module = awake_modules["lora"]
    twice = module.adapt(module.adapt(module.reset(), chunk, readout, 1).fast, chunk, readout, 1).fast
    assert tree_close(twice, module.adapt(module.reset(), chunk, readout, 2).fast, 1e-5)
    forgetful = Descent(
        module.adapt(module.reset(), chunk, readout, 1).fast.matrices, module.reset().optimiser
    )
    assert not tree_close(module.adapt(forgetful, chunk, readout, 1).fast.matrices, twice.matrices, 1e-4)


def test_an_update_on_fewer_tokens_costs_fewer_flops(chunk, readout):
    from ponderttt.costs import count_flops

    def cost(share: float) -> int:
        config = dataclasses.replace(TINY.lora, token_share=share)
        module = LoRA(WIDTH, config, rngs=nnx.Rngs(0))
        return count_flops(lambda c: module.adapt(module.reset(), c, readout, 1).fast, chunk)

    assert cost(0.25) < 0.6 * cost(1.0)
