"""Suffix adaptation after earlier chunks: its blocks attend to what the fast weights of that moment wrote."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ponderttt.actions import Action
from ponderttt.contexts import FULL, Context
from ponderttt.corpus.streams import Stream, Tokens, cut_chunks
from ponderttt.errors import PonderTTTError
from ponderttt.fast_weights.base import Chunk, Readout, as_chunk
from ponderttt.fast_weights.suffix import Full, SuffixAdapter
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.frozen.live import live_stream
from ponderttt.frozen.model import FrozenModel
from ponderttt.frozen.reading import StreamReader, suffix_cache
from ponderttt.loop.methods import Spending, arm_of
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.stream import run_streams
from ponderttt.loop.tree import Enumerator
from ponderttt.models.attention import MASKED
from ponderttt.models.backbone import random_backbone
from ponderttt.models.blocks import after_attention, finish_block
from ponderttt.models.families import family_of
from ponderttt.models.rotary import rotate
from ponderttt.models.suffix import SuffixWeights, suffix_weights
from ponderttt.names import MethodName
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.sequences import Allowance
from ponderttt.settings.context import ContextConfig
from ponderttt.settings.fast_weights import SuffixConfig
from ponderttt.settings.rules import RulesConfig
from ponderttt.training.slow_weights import window_chunks, window_loss
from ponderttt.training.world import World
from tiny_families import TINY

CHUNK, COUNT, SPLIT = 24, 6, 1
ENDS = ContextConfig(sinks=3)
WINDOW = Context("window", 2)
TOKENS = np.random.default_rng(0).integers(3, 60, COUNT * CHUNK + 1)
CONFIG = SuffixConfig(blocks=1, inner_rate=0.3, token_share=0.5)
#: Numbers of updates, by action.
ACTIONS = {action.steps: action for action in Action}
SPENDING = Spending(3.0, NOMINAL_COSTS, RulesConfig())


class Setting(NamedTuple):
    """A random backbone with two blocks after the split layer, and a stream that it has read."""

    model: FrozenModel
    context: Context
    stream: FrozenChunks

    @property
    def suffix(self) -> SuffixWeights:
        return suffix_weights(self.model.backbone)

    @property
    def readout(self) -> Readout:
        return Readout(self.model.backbone.unembedding, suffix=self.suffix)

    def chunks(self) -> list[Chunk]:
        names = Chunk._fields
        return [
            as_chunk({name: np.asarray(getattr(self.stream, name)[t]) for name in names})
            for t in range(COUNT)
        ]

    def module(self, blocks: int = 1, scale: float = 0.0) -> SuffixAdapter:
        shape = self.model.backbone.config
        cache = suffix_cache(shape, CHUNK, self.context, ENDS, shape.layers - SPLIT, COUNT)
        module = SuffixAdapter(shape.width, replace(CONFIG, blocks=blocks), shape, cache, rngs=nnx.Rngs(0))
        module.delta[...] = scale * jax.random.normal(jax.random.key(7), module.delta[...].shape)
        return module


def stream_of(tokens: np.ndarray = TOKENS) -> Stream:
    whole = Tokens(tokens.astype(np.int32), np.ones(len(tokens), np.int32), np.zeros(1, np.int32), ("a.py",))
    return cut_chunks(whole, CHUNK, 61, "stream", "Python")


@lru_cache
def model_of(family: str) -> FrozenModel:
    return FrozenModel(random_backbone(TINY[family], jax.random.key(0), split_layer=SPLIT))


@lru_cache
def world(family: str, context: Context) -> Setting:
    model = model_of(family)
    live = live_stream(StreamReader(model, stream_of(), context, ENDS))
    stacked = {
        name: np.stack([getattr(live, name)[t] for t in range(COUNT)])
        for name in FrozenChunks._fields
        if name != "stream_id"
    }
    return Setting(model, context, FrozenChunks(stream_id="stream", **stacked))


def first_chunks(at: Setting, count: int) -> Setting:
    """Cut the stream."""
    cut = {name: getattr(at.stream, name)[:count] for name in FrozenChunks._fields if name != "stream_id"}
    return at._replace(stream=at.stream._replace(**cut))


def read_through(
    module: SuffixAdapter, at: Setting, actions: list[int], trim: bool, moved: list[np.ndarray] | None = None
) -> np.ndarray:
    """Read all chunks, and learn from each as the actions say; return losses.

    Args:
        module: what reads.
        at: what is read.
        actions: updates after each chunk.
        trim: whether reads have no room for chunks to come.
        moved: changes of the matrices with which each chunk is read, instead of learned ones.
    """
    programs, losses = ModulePrograms(module), []
    one = lambda tree: jax.tree.map(lambda leaf: leaf[None], tree)  # noqa: E731
    fast = one(module.reset())
    for t, (chunk, steps) in enumerate(zip(at.chunks(), actions, strict=True)):
        if moved is not None:
            fast = fast._replace(descent=fast.descent._replace(matrices=Full(jnp.asarray(moved[t])[None])))
        seen = programs.trimmed(fast, t) if trim else fast
        inputs = (programs.slow, seen, one(chunk), at.readout)
        scored = programs.score(*inputs).value
        losses.append(scored.nll[0])
        after = programs.adapt[ACTIONS[steps]](*inputs).value.fast if steps else seen
        fast = programs.follow(fast, after, scored.fresh)
    return np.asarray(losses)


@pytest.mark.parametrize(("family", "context"), [("gemma3", FULL), ("llama", WINDOW)], ids=str)
def test_before_training_a_read_is_the_frozen_model_s_in_its_context(family: str, context: Context) -> None:
    at = world(family, context)
    for trim in (True, False):
        losses = read_through(at.module(), at, [0] * COUNT, trim)
        np.testing.assert_allclose(losses, at.stream.nll_frozen, atol=3e-5)


def dense(at: Setting, deltas: list[np.ndarray], window: int) -> list[np.ndarray]:
    """Losses under the definition: each chunk's states are computed with its own weights, and attend to those of before."""
    backbone, suffix = at.model.backbone, at.suffix
    shape, family = backbone.config, family_of(backbone.config)
    front, layers = len(shape.front), suffix.layers
    kept = max(ENDS.sinks, front)
    keys: list[list[Any]] = [[] for _ in range(layers)]
    values: list[list[Any]] = [[] for _ in range(layers)]
    losses = []
    for t, (chunk, delta) in enumerate(zip(at.chunks(), deltas, strict=True)):
        hidden = chunk.split if t == 0 else chunk.split[front:]
        total = front + (t + 1) * CHUNK
        queries = np.arange(total - len(hidden), total)
        for layer in range(layers):
            block = suffix.block(layer)
            if layer >= layers - len(delta):
                changed = shape.mlp_width**-0.5 * delta[layer - layers + len(delta)]
                block = block | {"mlp_down": block["mlp_down"] + changed}
            kind = family.kinds(shape)[SPLIT + layer]

            def place(positions: np.ndarray, kind: int = kind) -> Any:
                return family.places(shape, jnp.asarray(positions)).of(kind)

            query, key, value = family.heads(shape, block, hidden, place(np.zeros(len(hidden), int)).angles)
            keys[layer].append(key)
            values[layer].append(value)
            places = np.arange(total)
            visible = places <= queries[:, None]
            if t > window:
                oldest = front + (t - window) * CHUNK
                visible &= places >= oldest + kept
                places[:kept] = oldest + np.arange(kept)
                visible[:, :kept] = True
            if (local := place(places).window) is not None:
                visible &= queries[:, None] - places < int(local)
            turned = rotate(jnp.concatenate(keys[layer]), place(places).angles)
            own = rotate(query, place(queries).angles).reshape(
                len(hidden), shape.kv_heads, -1, shape.head_dim
            )
            scores = jnp.einsum("TKGH,SKH->KGTS", own * shape.query_scale, turned)
            weights = jax.nn.softmax(scores + jnp.where(visible, 0.0, MASKED))
            read = jnp.einsum("KGTS,SKH->TKGH", weights, jnp.concatenate(values[layer]))
            inner = after_attention(shape, block, hidden, read.reshape(query.shape))
            hidden = finish_block(shape, block, *inner)
        final = family.final_norm(shape, suffix.outer, hidden[-CHUNK:])
        logits = jax.nn.log_softmax(final @ backbone.unembedding.T)
        losses.append(-np.asarray(logits)[np.arange(CHUNK), np.asarray(chunk.targets)])
    return losses


@pytest.mark.parametrize(
    ("family", "context", "window"), [("gemma3", WINDOW, 2), ("llama", FULL, COUNT)], ids=str
)
def test_keys_and_values_are_those_of_the_fast_weights_that_read_the_chunk(
    family: str, context: Context, window: int
) -> None:
    at = world(family, context)
    module = at.module(blocks=2, scale=0.7)
    start = np.asarray(module.delta[...])
    moved = [start * (1 + 0.5 * t) for t in range(COUNT)]
    losses = read_through(module, at, [0] * COUNT, True, moved)
    np.testing.assert_allclose(losses, dense(at, moved, window), atol=5e-5)
    # The weights of one moment do not reach what was written before: with the last ones throughout, losses differ.
    assert np.abs(losses[-1] - dense(at, [moved[-1]] * COUNT, window)[-1]).max() > 1e-3


def test_room_for_more_chunks_changes_no_loss_and_no_update() -> None:
    at = world("gemma3", WINDOW)
    module = at.module(blocks=2, scale=0.7)
    actions = [1, 0, 2, 1, 0, 4]
    narrow, wide = (read_through(module, at, actions, trim) for trim in (True, False))
    np.testing.assert_allclose(narrow, wide, atol=2e-5)
    assert not np.allclose(narrow[1:], read_through(module, at, [0] * COUNT, trim=True)[1:], atol=1e-3)


def test_nothing_before_a_changed_token_moves() -> None:
    position = 3 * CHUNK + 7
    other = TOKENS.copy()
    other[position] = 3 + (other[position] - 2) % 57
    model = model_of("gemma3")
    found = []
    for tokens in (TOKENS, other):
        live = live_stream(StreamReader(model, stream_of(tokens), WINDOW, ENDS))
        at = world("gemma3", WINDOW)
        arm = arm_of(MethodName("update_1"), ModulePrograms(at.module(2, 0.7)), SPENDING, 0)
        (steps,) = run_streams([arm], Group([live], model.backbone.unembedding, at.suffix)).values()
        found.append(np.concatenate([step.nll for step in steps]))
    # The token at a position is the target of the one before it.
    same = found[0] == found[1]
    assert same[: position - 1].all()
    assert not same[position - 1 :].all()


def test_the_loop_the_world_of_policies_and_the_tree_give_the_same_losses() -> None:
    at = first_chunks(world("llama", FULL), 4)
    module = at.module(2, 0.7)
    programs = ModulePrograms(module)
    group = Group([at.stream], at.model.backbone.unembedding, at.suffix)
    arm = arm_of(MethodName("update_1"), programs, SPENDING, 0)
    (steps,) = run_streams([arm], group).values()
    losses = [step.loss for step in steps]
    policies = World(programs, [at.stream], at.model.backbone.unembedding, at.suffix)
    updates: tuple[tuple[int, int], ...] = ()
    for t in range(len(losses)):
        assert policies.read(0, t, updates).loss == losses[t]
        updates = policies.learn(0, t, updates, Action.UPDATE_1)
    tree = Enumerator(module, at.model.backbone.unembedding, at.suffix)
    allowance = Allowance.of(NOMINAL_COSTS, 2.75, len(losses))
    found = tree.losses(at.stream, [allowance]).levels
    assert found[1][(int(Action.UPDATE_1),)] == losses[1]
    assert len(found[2]) > 3 and len(set(found[2].values())) == len(found[2])


def test_training_reads_as_the_loop_does() -> None:
    at = world("gemma3", FULL)
    module = at.module(2, 0.7)
    chunks = window_chunks(at.stream, 0, COUNT)
    train = jax.jit(
        lambda action, key: window_loss(module, module.reset(), chunks, at.readout, action, key, None)
    )
    result = train(jnp.asarray(1), jax.random.key(0))
    expected = np.sum(read_through(module, at, [1] * COUNT, trim=False))
    assert float(result.loss) == pytest.approx(expected, rel=1e-5)


def test_a_read_costs_what_it_attends_to() -> None:
    at = world("llama", FULL)
    module = at.module(2)
    programs = ModulePrograms(module)
    chunk = jax.tree.map(lambda leaf: leaf[None], at.chunks()[0])
    fast = jax.tree.map(lambda leaf: leaf[None], module.reset())
    flops = [
        programs.score.flops(programs.slow, programs.trimmed(fast, t), chunk, at.readout) for t in range(9)
    ]
    # Room for 0, 1, 2, 4 and 8 chunks; each cached chunk adds the same.
    steps = np.diff([flops[t] for t in (1, 2, 4, 8)])
    np.testing.assert_allclose(steps, steps[0] * np.array([1, 2, 4]))
    assert flops[0] < flops[1] and flops[3] == flops[4] and flops[5] == flops[8]


def test_a_context_that_is_read_again_is_refused() -> None:
    shape = TINY["gpt2"]
    with pytest.raises(PonderTTTError, match="suffix on context full cannot read chunks again"):
        suffix_cache(shape, CHUNK, FULL, ContextConfig(at_limit="reread_half"), 2)
