"""A stream that is read with a cache gives what its context defines, chunk by chunk, at the cost of what runs."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ponderttt.contexts import ALONE, FULL, Context
from ponderttt.corpus.streams import Stream, Tokens, cut_chunks
from ponderttt.costs import count_flops
from ponderttt.errors import PonderTTTError
from ponderttt.frozen.model import FrozenModel, States
from ponderttt.frozen.reading import StreamReader, check_context
from ponderttt.models.attention import MASKED
from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.blocks import after_attention, finish_block
from ponderttt.models.decoder import embedded
from ponderttt.models.families import family_of
from ponderttt.models.families.family import Place
from ponderttt.models.rotary import rotate
from ponderttt.models.streaming import Ring, empty_past, prefix_after
from ponderttt.settings.context import ContextConfig
from tiny_families import TINY

CHUNK = 24
ENDS = ContextConfig(sinks=3)
TOKENS = np.random.default_rng(0).integers(3, 60, 6 * CHUNK + 1)


@lru_cache
def model_of(family: str, limit: int = 512) -> FrozenModel:
    """A random model; one with a lower limit is the same model."""
    backbone = random_backbone(TINY[family], jax.random.key(0), split_layer=2)
    return FrozenModel(replace(backbone, config=replace(backbone.config, max_context=limit)))


def stream_of(tokens: np.ndarray = TOKENS) -> Stream:
    whole = Tokens(tokens.astype(np.int32), np.ones(len(tokens), np.int32), np.zeros(1, np.int32), ("a.py",))
    return cut_chunks(whole, CHUNK, 61, "stream", "Python")


def read(
    model: FrozenModel, context: Context, ends: ContextConfig = ENDS, stream: Stream | None = None
) -> list[States]:
    reader = StreamReader(model, stream or stream_of(), context, ends)
    return [reader.states(index) for index in range(len(reader.stream.input_ids))]


def whole_text(backbone: Backbone, first: int = 0) -> np.ndarray:
    """Final states of the text from chunk ``first`` on, read at once."""
    tokens = [*backbone.config.front, *TOKENS[first * CHUNK : -1]]
    hidden = backbone.hidden(jnp.asarray([tokens]))
    return np.asarray(hidden)[0, len(backbone.config.front) :].reshape(-1, CHUNK, hidden.shape[-1])


@pytest.mark.parametrize("family", TINY)
def test_full_reads_what_the_whole_text_at_once_gives(family: str) -> None:
    model = model_of(family)
    ends = ContextConfig(at_limit="reread_half")
    found = np.stack([states.hidden for states in read(model, FULL, ends)])
    np.testing.assert_allclose(found, whole_text(model.backbone), atol=2e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("chunks", [1, 2])
def test_a_window_slides_and_keeps_the_first_tokens(family: str, chunks: int) -> None:
    model = model_of(family)
    found = np.stack([states.hidden for states in read(model, Context("window", chunks))])
    np.testing.assert_allclose(found, windowed(model.backbone, chunks, ENDS.sinks), atol=2e-5)


def windowed(backbone: Backbone, chunks: int, sinks: int) -> np.ndarray:
    """Final states under the definition of a window: dense attention with a mask and positions for every query."""
    shape, family = backbone.config, family_of(backbone.config)
    model = nnx.merge(backbone.graph, backbone.params)
    front = len(shape.front)
    tokens = np.asarray([*shape.front, *TOKENS[:-1]])
    hidden = embedded(shape, model.outer.arrays(), jnp.asarray(tokens)[None])[0]
    stacks = [model.blocks_before.arrays(), model.blocks_after.arrays()]
    blocks = [
        {name: array[row] for name, array in stack.items()}
        for stack in stacks
        for row in range(len(stack["mlp_down"]))
    ]
    chunk_of = np.maximum((np.arange(len(tokens)) - front) // CHUNK, 0)
    kept = max(sinks, front)
    for block, kind in zip(blocks, family.kinds(shape), strict=True):

        def at(places: np.ndarray, kind: int = kind) -> Place:
            return family.places(shape, jnp.asarray(places)).of(kind)

        query, key, value = family.heads(shape, block, hidden, at(np.zeros(len(tokens), int)).angles)
        rows = []
        for chunk in range(len(tokens) // CHUNK):
            queries = np.flatnonzero(chunk_of == chunk)
            oldest = front + (chunk - chunks) * CHUNK if chunk > chunks else 0
            places = np.arange(len(tokens))
            visible = places <= queries[:, None]
            if chunk > chunks:
                visible &= places >= oldest + kept
                places[:kept] = oldest + np.arange(kept)
                visible[:, :kept] = True
            window = at(places).window
            if window is not None:
                visible &= queries[:, None] - places < int(window)
            turned, own = rotate(key, at(places).angles), rotate(query[queries], at(queries).angles)
            grouped = own.reshape(len(own), shape.kv_heads, -1, shape.head_dim) * shape.query_scale
            scores = jnp.einsum("TKGH,SKH->KGTS", grouped, turned) + jnp.where(visible, 0.0, MASKED)
            rows.append(jnp.einsum("KGTS,SKH->TKGH", jax.nn.softmax(scores), value).reshape(own.shape))
        hidden = finish_block(shape, block, *after_attention(shape, block, hidden, jnp.concatenate(rows)))
    final = model.normed(hidden)
    return np.asarray(final)[front:].reshape(-1, CHUNK, final.shape[-1])


@pytest.mark.parametrize("family", TINY)
def test_at_the_limit_half_of_it_is_read_again_from_position_0(family: str) -> None:
    # Three chunks fit, so that chunk 3 has chunk 2 read again before it, and chunk 5 has chunk 4.
    model = model_of(family, limit=3 * CHUNK + 1)
    again = ContextConfig(at_limit="reread_half")
    states = read(model, FULL, again)
    np.testing.assert_allclose(states[2].hidden, whole_text(model_of(family).backbone)[2], atol=2e-5)
    for index, first in ((3, 2), (4, 2), (5, 4)):
        expected = whole_text(model_of(family).backbone, first)[index - first]
        np.testing.assert_allclose(states[index].hidden, expected, atol=2e-5)
    assert states[3].prefix.flops == states[0].prefix.flops + states[1].prefix.flops


@pytest.mark.parametrize("context", [FULL, Context("window", 1), Context("window", 2)], ids=str)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_nothing_before_a_changed_token_moves_through_the_cache_either(family: str, context: Context) -> None:
    model, position = model_of(family), 2 * CHUNK + 7
    other = TOKENS.copy()
    other[position] = 3 + (other[position] - 2) % 57
    pairs = zip(read(model, context), read(model, context, stream=stream_of(other)), strict=True)
    moved = np.concatenate([(a.hidden != b.hidden).any(-1) for a, b in pairs])
    assert moved.argmax() == position
    # The next chunk sees it, and nothing of the text before it.
    assert moved[3 * CHUNK : 4 * CHUNK].all()


def test_attention_is_counted_by_real_lengths_and_stops_growing_with_the_window() -> None:
    model = model_of("llama")
    shape, graph, params = model.backbone.config, model.backbone.graph, model.backbone.params
    flops = [states.prefix.flops for states in read(model, Context("window", 3))]
    ring = Ring(CHUNK, slots=3, sinks=3, front=0)
    past, tokens = empty_past(shape, ring, 2, jnp.float32), jnp.zeros(CHUNK, jnp.int32)

    def counted(index: int) -> int:
        """Count a loop over as many cached chunks as there are."""
        return count_flops(
            lambda params, tokens, past: prefix_after(nnx.merge(graph, params), tokens, past, index, ring),
            params,
            tokens,
            past,
        )

    assert flops == [counted(index) for index in range(len(flops))]
    assert len(set(flops[3:])) == 1
    # Scores and sums of values in two blocks, 2 FLOPs each; elements of the scores cost a little more.
    products = 2 * 4 * shape.heads * shape.head_dim * CHUNK * CHUNK
    assert products < flops[1] - flops[0] < 2.5 * products


def test_what_the_blocks_observe_is_what_they_observe_on_the_whole_text() -> None:
    model = model_of("llama")
    backbone = model.backbone
    tokens = jnp.asarray([TOKENS[:-1]])
    whole = nnx.merge(backbone.graph, backbone.params)
    _, expected = whole.observed_suffix(whole.prefix(tokens), tokens < 61, len(TOKENS) - 1)
    for index, states in enumerate(read(model, FULL)):
        for found, all_of_it in zip(states.attention, expected, strict=True):
            part = np.asarray(all_of_it)[:, 0, :, index * CHUNK : (index + 1) * CHUNK]
            np.testing.assert_allclose(found, part, atol=1e-4)


def test_a_chunk_is_read_once_in_order_and_going_back_starts_the_stream_again() -> None:
    reader = StreamReader(model_of("llama"), stream_of(), FULL, ENDS)
    last = reader.states(4)
    again = StreamReader(model_of("llama"), stream_of(), FULL, ENDS)
    for index in (0, 1, 2, 1, 3, 4):
        found = again.states(index)
    assert np.array_equal(found.hidden, last.hidden)


@pytest.mark.parametrize(
    ("family", "context", "ends", "says"),
    [
        (
            "llama",
            Context("window", 30),
            ENDS,
            "in context window_30 needs 744 positions, the model's context holds 512",
        ),
        ("gpt2", Context("window", 1), ENDS, "context window_1 needs rotary positions.*use context_1"),
        ("gpt2", FULL, ENDS, "context.at_limit slide needs rotary positions.*set it to reread_half"),
        ("llama", Context("window", 1), ContextConfig(sinks=25), "context.sinks must be at most 24.*got 25"),
        ("llama", FULL, ContextConfig(sinks=505), "context.sinks must be at most 480"),
    ],
)
def test_a_context_that_a_model_cannot_read_is_one_line(
    family: str, context: Context, ends: ContextConfig, says: str
) -> None:
    with pytest.raises(PonderTTTError, match=says) as refused:
        check_context(TINY[family], CHUNK, context, ends)
    assert "\n" not in str(refused.value)
    check_context(TINY[family], CHUNK, ALONE, ends)
