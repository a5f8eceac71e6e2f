"""A text under fast weights is a stream: its chunks go through the one loop, and the next token is what the loop's state says."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.config import RulesConfig
from ponderttt.corpus.streams import Stream
from ponderttt.decoding.adaptive import AdaptiveText
from ponderttt.errors import PonderTTTError
from ponderttt.fast_weights.base import Chunk, FastWeights, Readout
from ponderttt.fast_weights.build import build
from ponderttt.frozen import FrozenModel
from ponderttt.loop.methods import Spending
from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.suffix import suffix_weights
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.scoring import score_stream
from tiny_families import TINY
from tiny_streams import TINY as MODULES

CHUNK = 24
SPENDING = Spending(3.0, NOMINAL_COSTS, RulesConfig(schedule=("UPDATE_4", "SKIP", "UPDATE_1")))
PROMPT = np.random.default_rng(0).integers(3, 40, 61).tolist()
MORE = np.random.default_rng(1).integers(3, 40, 30).tolist()


@lru_cache
def backbone_of(family: str) -> Backbone:
    return random_backbone(TINY[family], jax.random.key(0), split_layer=2)


@lru_cache
def model_of(family: str) -> FrozenModel:
    return FrozenModel(backbone_of(family))


def module_of(kind: str, family: str) -> FastWeights:
    """Awake, so that an update moves what is read."""
    backbone = backbone_of(family)
    module = build(kind, backbone.config.width, MODULES, 0, backbone.config)
    if name := {"ttt": "output", "lora": "up", "suffix": "delta"}.get(kind):
        parameter = getattr(module, name)
        parameter[...] = 0.05 * jax.random.normal(jax.random.key(3), parameter[...].shape)
    return module


def text_of(
    kind: str, family: str, context: int = 0, method: str = "schedule", max_tokens: int = 100
) -> AdaptiveText:
    suffix = suffix_weights(backbone_of(family)) if kind == "suffix" else None
    return AdaptiveText(
        model_of(family),
        module_of(kind, family),
        method,
        SPENDING,
        chunk_size=CHUNK,
        context_chunks=context,
        max_tokens=max_tokens,
        suffix=suffix,
    )


def stream_of(ids: list[int]) -> Stream:
    count = (len(ids) - 1) // CHUNK
    read = np.asarray(ids[: count * CHUNK], np.int32).reshape(count, CHUNK)
    targets = np.asarray(ids[1 : count * CHUNK + 1], np.int32).reshape(count, CHUNK)
    shape = (count, CHUNK)
    return Stream(
        "text",
        "any",
        read,
        targets,
        np.ones(shape, bool),
        np.zeros(count, np.int32),
        np.zeros(1, np.int32),
        ("text",),
    )


CASES = [
    ("memory", "llama", 0),
    ("lora", "gpt2", 1),
    pytest.param("ttt", "gemma3", 0, marks=pytest.mark.slow),
    ("suffix", "gemma3", 0),
    pytest.param("suffix", "llama", 0, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "family", "context"), CASES)
def test_chunks_of_the_prompt_and_of_the_continuation_go_through_the_loop(
    kind: str, family: str, context: int
) -> None:
    text = text_of(kind, family, context)
    steps = list(text.read(PROMPT))
    assert len(steps) == 2
    for token in MORE:
        text.next_token()
        steps += text.read([token])
    suffix = suffix_weights(backbone_of(family)) if kind == "suffix" else None
    whole = stream_of([*PROMPT, *MORE])
    expected = list(
        score_stream(model_of(family), whole, module_of(kind, family), "schedule", SPENDING, context, suffix)
    )
    assert [step.action for step in steps] == [step.action for step in expected]
    assert [step.loss for step in steps] == [step.loss for step in expected]


@pytest.mark.parametrize(("kind", "family", "context"), CASES)
def test_the_next_token_is_what_the_module_reads_in_the_whole_chunk(
    kind: str, family: str, context: int
) -> None:
    """Cached, step by step, against one reading of everything that the chunk may see."""
    text = text_of(kind, family, context)
    list(text.read(PROMPT))
    backbone, module = backbone_of(family), module_of(kind, family)
    ids = list(PROMPT)
    for token in MORE[:15]:
        found = np.asarray(text.next_token())
        expected = recomputed(backbone, module, text, ids, context)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        list(text.read([token]))
        ids.append(token)


def recomputed(
    backbone: Backbone, module: FastWeights, text: AdaptiveText, ids: list[int], context: int
) -> np.ndarray:
    done = (len(ids) - 1) // CHUNK
    front = backbone.config.front
    own = ids[done * CHUNK :]
    seen = [*front, *ids[max(0, done - context) * CHUNK :]]
    tokens = np.full((1, 80), backbone.config.pad_id, np.int32)
    tokens[0, : len(seen)] = seen
    split = np.asarray(backbone.prefix(jnp.asarray(tokens)))[0, : len(seen)]
    hidden = np.asarray(backbone.hidden(jnp.asarray(tokens)))[0, len(seen) - len(own) : len(seen)]
    room = CHUNK - len(own)
    before = len(front) if context == 0 else 0
    chunk = Chunk(
        jnp.asarray(np.pad(hidden, ((0, room), (0, 0)))),
        jnp.zeros(CHUNK, jnp.int32),
        jnp.arange(CHUNK) < len(own),
        jnp.zeros(CHUNK),
        jnp.zeros(CHUNK),
        jnp.asarray(np.pad(split[len(seen) - len(own) - before :], ((0, room), (0, 0)))),
    )
    suffix = suffix_weights(backbone)
    fast = jax.tree.map(lambda leaf: leaf[0], text.fast)
    if (backbone.config.family, type(module)) not in _COMPILED:
        _COMPILED[backbone.config.family, type(module)] = jax.jit(
            lambda fast, chunk: module.next_token(fast, chunk, Readout(backbone.unembedding, suffix=suffix))
        )
    return np.asarray(_COMPILED[backbone.config.family, type(module)](fast, chunk))[len(own) - 1]


_COMPILED: dict[object, object] = {}


def test_what_was_learned_changes_what_comes_next() -> None:
    """The text repeats itself: after two chunks a memory expects the third to go on as they did."""
    once = PROMPT[:CHUNK]
    ids = [*once, *once, *once[:10]]
    learned, skipped = (text_of("memory", "llama", method=method) for method in ("update_4", "skip"))
    for text in (learned, skipped):
        list(text.read(ids))
    gain = learned.next_token()[once[10]] - skipped.next_token()[once[10]]
    assert gain > 0.5


def test_a_rule_is_told_how_long_the_text_may_become() -> None:
    """The budget is that of all chunks that may come, so that the prompt alone does not spend it."""
    short, long = (text_of("memory", "llama", method="random", max_tokens=n) for n in (62, 194))
    first_short, first_long = next(short.read(PROMPT)), next(long.read(PROMPT))
    assert first_short.budget_left == pytest.approx(2 * 3.0)
    assert first_long.budget_left == pytest.approx(8 * 3.0)


def test_more_tokens_than_were_announced_are_refused() -> None:
    with pytest.raises(PonderTTTError, match="the text has 61 tokens, of at most 60"):
        list(text_of("memory", "llama", max_tokens=60).read(PROMPT))


def test_a_prompt_shorter_than_a_chunk_is_read_with_fresh_fast_weights() -> None:
    text = text_of("memory", "gemma3")
    assert list(text.read([5, 6])) == []
    expected = jax.nn.log_softmax(
        backbone_of("gemma3").unembed(backbone_of("gemma3").hidden(jnp.asarray([[2, 5, 6]])))[0, -1]
    )
    np.testing.assert_allclose(text.next_token(), expected, rtol=1e-4, atol=1e-5)
