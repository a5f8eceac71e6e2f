"""Decoding with a cache equals reading the whole text again, for every family, batch and length."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ponderttt.decoding.cache import Unstacked, left_padded, logits_of, prefill, step, unstack, write
from ponderttt.decoding.generate import Generator
from ponderttt.decoding.sampling import Sampling
from ponderttt.errors import PonderTTTError
from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.quantised import Precision, by_rows

GREEDY = Sampling()


def texts(lengths: list[int], seed: int = 0) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(3, 61, length).tolist() for length in lengths]


@pytest.fixture(scope="module")
def unstacked(tiny: Backbone) -> Unstacked:
    return unstack(nnx.merge(tiny.graph, tiny.params))


def test_blocks_share_the_memory_of_the_stacks(tiny: Backbone, unstacked: Unstacked) -> None:
    """Decoding holds no second copy of the model."""
    model = nnx.merge(tiny.graph, tiny.params)
    inside = 0
    for name, stack in model.blocks_before.arrays().items():
        for index in range(len(stack)):
            block = unstacked.blocks[index][name]
            np.testing.assert_array_equal(block, stack[index])
            # What does not begin on a boundary of 64 bytes would be copied, as some norms of a model so small.
            if index * stack[0].nbytes % 64 == 0:
                start = stack.unsafe_buffer_pointer() + index * stack[0].nbytes
                assert block.unsafe_buffer_pointer() == start, name
                inside += block.nbytes
    assert inside > 0.9 * sum(stack.nbytes for stack in model.blocks_before.arrays().values())


@pytest.mark.parametrize(
    "precision", [Precision("bfloat16"), Precision(kind="int8"), Precision("bfloat16", "int4")]
)
def test_blocks_of_a_narrower_model_are_parts_of_its_stacks(precision: Precision, tiny: Backbone) -> None:
    """No copy of a stack stays on the host either."""
    backbone = random_backbone(tiny.config, jax.random.key(0), precision=precision)
    model = nnx.merge(backbone.graph, backbone.params)
    blocks = unstack(model).blocks
    for name, stack in model.blocks_before.arrays().items():
        for index, block in enumerate(blocks[: model.split_layer]):
            for part, whole in zip(jax.tree.leaves(block[name]), jax.tree.leaves(stack), strict=True):
                np.testing.assert_array_equal(part, whole[index], err_msg=name)
                assert part.dtype == whole.dtype and part.devices() == whole.devices()
    assert all(leaf._npy_value is None for leaf in jax.tree.leaves(backbone.params))


@pytest.mark.parametrize("rows", [1, 4, 40])
@pytest.mark.parametrize("precision", [Precision("bfloat16"), Precision(kind="int8"), Precision(kind="int4")])
def test_a_quantised_vocabulary_is_opened_in_parts(rows: int, precision: Precision) -> None:
    """Opening some rows at a time gives the logits of the whole matrix, also if the last part is smaller."""
    draw = np.random.default_rng(0)
    matrix = draw.standard_normal((9_001, 128), np.float32)
    hidden = jnp.asarray(draw.standard_normal((rows, 128), np.float32))
    weights = Unstacked((), {}, by_rows(precision.kept("unembedding", matrix, stacked=False)))
    program = jax.jit(logits_of).lower(weights, hidden).compile()
    rounded = hidden.astype(precision.dtype).astype(jnp.float32)
    wanted = rounded @ precision.used("unembedding", matrix, stacked=False).T
    np.testing.assert_allclose(program(weights, hidden), wanted, rtol=1e-5, atol=1e-4)
    # int4 is unpacked as a whole, to a byte each.
    unpacked = matrix.size if precision.kind == "int4" else 0
    beside = program.memory_analysis().temp_size_in_bytes - unpacked - 4 * wanted.size
    assert beside < matrix.nbytes / 2


def whole(backbone: Backbone, ids: list[int]) -> np.ndarray:
    """Return the logits after a text that is read at once; padding on the right gives one compiled length."""
    tokens = np.full((1, 192), backbone.config.pad_id, np.int32)
    tokens[0, : len(ids)] = ids
    return np.asarray(backbone.unembed(backbone.hidden(jnp.asarray(tokens))[0, len(ids) - 1]))


@pytest.mark.parametrize("lengths", [[1], [5, 131], [64, 1, 127, 130]])
def test_every_step_has_the_logits_of_the_whole_text(
    lengths: list[int], tiny: Backbone, unstacked: Unstacked
) -> None:
    """Prompts are shorter and longer than Gemma's window, padded on the left, and continued beyond it."""
    shape, prompts, more = tiny.config, texts(lengths), texts([12] * len(lengths), seed=1)
    read, cache = jax.jit(prefill, static_argnums=(0, 3))(
        shape, unstacked, jnp.asarray(left_padded(prompts, shape.pad_id, 136)), 160
    )
    advance = jax.jit(step, static_argnums=0)
    hidden = read.hidden[:, -1]
    for place in range(13):
        logits = np.asarray(logits_of(unstacked, hidden))
        for row, prompt in enumerate(prompts):
            expected = whole(tiny, [*prompt, *more[row][:place]])
            np.testing.assert_allclose(logits[row], expected, rtol=2e-4, atol=2e-4)
        if place < 12:
            tokens = jnp.asarray([row[place] for row in more], jnp.int32)
            found, fresh = advance(shape, unstacked, tokens, cache)
            cache = write(cache, fresh)
            hidden = found.hidden


@pytest.mark.parametrize("lengths", [[3], [70, 9, 1]])
def test_greedy_tokens_are_those_of_full_recomputation(lengths: list[int], tiny: Backbone) -> None:
    prompts = texts(lengths, seed=2)
    found = Generator(tiny).continuations(prompts, [GREEDY] * len(prompts), 16)
    for prompt, tokens in zip(prompts, found, strict=True):
        assert len(tokens) == 16
        for place, token in enumerate(tokens):
            logits = whole(tiny, [*tiny.config.front, *prompt, *tokens[:place]])
            # A tie to rounding may fall either way.
            assert logits[token] >= logits.max() - 1e-4


def test_a_row_does_not_depend_on_its_batch(tiny: Backbone) -> None:
    generator, prompts = Generator(tiny), texts([40, 2, 17], seed=3)
    requests = [Sampling(temperature=0.9, top_k=20, top_p=0.9, seed=seed) for seed in (4, 5, 6)]
    together = generator.continuations(prompts, requests, 10)
    alone = [generator.continuations([p], [r], 10)[0] for p, r in zip(prompts, requests, strict=True)]
    assert together == alone


def test_a_row_ends_at_its_own_end(tiny: Backbone) -> None:
    generator, prompts = Generator(tiny), texts([4, 30], seed=7)
    free = generator.continuations(prompts, [GREEDY] * 2, 8)
    end = free[0][3]
    ended = generator.continuations(prompts, [GREEDY] * 2, 8, ends={end})
    for row in range(2):
        cut = free[row].index(end) if end in free[row] else 8
        assert ended[row] == free[row][:cut]


def test_a_text_beyond_the_context_is_refused(tiny: Backbone) -> None:
    with pytest.raises(PonderTTTError, match="exceed the model's context of 512"):
        Generator(tiny).continuations(texts([500]), [GREEDY], 20)


def test_a_prompt_without_tokens_is_refused(tiny: Backbone) -> None:
    with pytest.raises(PonderTTTError, match="a prompt has no tokens"):
        Generator(tiny).continuations([], [], 4)
    # A beginning-of-sequence token alone is no prompt.
    with pytest.raises(PonderTTTError, match="a prompt has no tokens"):
        Generator(tiny).continuations([[]], [GREEDY], 4)
