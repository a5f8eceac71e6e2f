"""A text with fast weights is a stream: its chunks go through the loop, whose state predicts the next token."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from ponderttt.cli.complete import Continuation, complete_text, prompted
from ponderttt.cli.reader import Request, open_model
from ponderttt.cli.score import score_paths
from ponderttt.contexts import ALONE, FULL, Context
from ponderttt.corpus.streams import Document, Stream, Tokens, cut_chunks
from ponderttt.decoding.adaptive import AdaptiveText
from ponderttt.decoding.sampling import Sampling
from ponderttt.errors import PonderTTTError
from ponderttt.fast_weights.base import Chunk, FastWeights, Readout
from ponderttt.fast_weights.build import build
from ponderttt.features.table import index
from ponderttt.frozen.model import FrozenModel
from ponderttt.frozen.reading import StreamReader, suffix_cache
from ponderttt.loop.methods import Spending
from ponderttt.loop.scoring import score_stream
from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.suffix import suffix_weights
from ponderttt.names import FastWeightsName, MethodName
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.trained import save_policy
from ponderttt.records.step import Step
from ponderttt.settings.context import ContextConfig
from ponderttt.settings.experiment import load
from ponderttt.settings.rules import RulesConfig
from study import CONFIG, write_model
from tiny_families import TINY
from tiny_policies import learned_policies
from tiny_streams import TINY as MODULES

CHUNK = 24
ENDS = ContextConfig(sinks=3)
SPENDING = Spending(3.0, NOMINAL_COSTS, RulesConfig(schedule=("UPDATE_4", "SKIP", "UPDATE_1")))
PROMPT = np.random.default_rng(0).integers(3, 40, 61).tolist()
MORE = np.random.default_rng(1).integers(3, 40, 30).tolist()


@lru_cache
def backbone_of(family: str) -> Backbone:
    return random_backbone(TINY[family], jax.random.key(0), split_layer=2)


@lru_cache
def model_of(family: str) -> FrozenModel:
    return FrozenModel(backbone_of(family))


def module_of(kind: str, family: str, context: Context) -> FastWeights:
    """Use awake modules, whose updates change predictions."""
    shape, split = backbone_of(family).config, backbone_of(family).split_layer
    cache = suffix_cache(shape, CHUNK, context, ENDS, shape.layers - split)
    module = build(kind, shape.width, MODULES, 0, shape, cache)
    if name := {"ttt": "output", "lora": "up", "suffix": "delta"}.get(kind):
        parameter = getattr(module, name)
        parameter[...] = 0.05 * jax.random.normal(jax.random.key(3), parameter[...].shape)
    return module


def text_of(
    kind: str, family: str, context: Context = ALONE, method: str = "schedule", max_tokens: int = 100
) -> AdaptiveText:
    suffix = suffix_weights(backbone_of(family)) if kind == "suffix" else None
    return AdaptiveText(
        model_of(family),
        module_of(kind, family, context),
        MethodName(method),
        SPENDING,
        chunk_size=CHUNK,
        context=context,
        ends=ENDS,
        max_tokens=max_tokens,
        suffix=suffix,
    )


def stream_of(ids: list[int]) -> Stream:
    """Cut tokens into chunks, the last of which may be half-empty."""
    whole = Tokens(np.asarray(ids, np.int32), np.zeros(len(ids), np.int32), np.zeros(1, np.int32), ("text",))
    return cut_chunks(whole, CHUNK, TINY["llama"].pad_id, "text", "any")


CASES = [
    ("memory", "llama", FULL),
    ("lora", "gemma3", Context("window", 1)),
    ("memory", "llama", ALONE),
    ("lora", "gpt2", Context("context", 1)),
    pytest.param("ttt", "gemma3", ALONE, marks=pytest.mark.slow),
    ("suffix", "gemma3", FULL),
    pytest.param("suffix", "gemma3", ALONE, marks=pytest.mark.slow),
    pytest.param("suffix", "llama", ALONE, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "family", "context"), CASES)
def test_chunks_of_the_prompt_and_of_the_continuation_go_through_the_loop(
    kind: str, family: str, context: Context
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
        score_stream(
            model_of(family),
            whole,
            module_of(kind, family, context),
            MethodName("schedule"),
            SPENDING,
            context,
            ENDS,
            suffix,
        )
    )
    # The last chunk is not full.
    full = expected[:-1]
    assert [step.action for step in steps] == [step.action for step in full]
    assert [step.loss for step in steps] == [step.loss for step in full]


@pytest.mark.parametrize(("kind", "family", "context"), CASES)
def test_the_next_token_is_predicted_as_in_the_whole_chunk(kind: str, family: str, context: Context) -> None:
    """Compare cached steps with one pass over everything that the chunk may see."""
    text = text_of(kind, family, context)
    list(text.read(PROMPT))
    backbone, module = backbone_of(family), module_of(kind, family, context)
    ids = list(PROMPT)
    for token in MORE[:15]:
        found = np.asarray(text.next_token())
        expected = recomputed(backbone, module, text, ids, context)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        list(text.read([token]))
        ids.append(token)


def recomputed(
    backbone: Backbone, module: FastWeights, text: AdaptiveText, ids: list[int], context: Context
) -> np.ndarray:
    done = (len(ids) - 1) // CHUNK
    front = backbone.config.front
    own = ids[done * CHUNK :]
    room = CHUNK - len(own)
    if context.is_cached:
        padded = stream_of([*ids, *[backbone.config.pad_id] * (room + 1)])
        states = StreamReader(model_of(backbone.config.family), padded, context, ENDS).states(done)
        hidden, split = states.hidden[: len(own)], states.split[: len(front) + len(own)]
    else:
        seen = [*front, *ids[max(0, done - context.chunks) * CHUNK :]]
        tokens = np.full((1, 80), backbone.config.pad_id, np.int32)
        tokens[0, : len(seen)] = seen
        before = len(front) if context == ALONE else 0
        split = np.asarray(backbone.prefix(jnp.asarray(tokens)))[0, len(seen) - len(own) - before : len(seen)]
        hidden = np.asarray(backbone.hidden(jnp.asarray(tokens)))[0, len(seen) - len(own) : len(seen)]
    chunk = Chunk(
        jnp.asarray(np.pad(hidden, ((0, room), (0, 0)))),
        jnp.zeros(CHUNK, jnp.int32),
        jnp.arange(CHUNK) < len(own),
        jnp.zeros(CHUNK),
        jnp.zeros(CHUNK),
        jnp.asarray(np.pad(split, ((0, room), (0, 0)))),
    )
    suffix = suffix_weights(backbone)
    fast = jax.tree.map(lambda leaf: leaf[0], text.fast)
    key = (backbone.config.family, type(module), context)
    if key not in _COMPILED:
        _COMPILED[key] = jax.jit(
            lambda fast, chunk: module.next_token(fast, chunk, Readout(backbone.unembedding, suffix=suffix))
        )
    return np.asarray(_COMPILED[key](fast, chunk))[len(own) - 1]


_COMPILED: dict[object, object] = {}


def test_what_was_learned_changes_what_comes_next() -> None:
    """In a text that repeats itself, a memory predicts the third chunk from the first two."""
    once = PROMPT[:CHUNK]
    ids = [*once, *once, *once[:10]]
    learned, skipped = (text_of("memory", "llama", method=method) for method in ("update_4", "skip"))
    for text in (learned, skipped):
        list(text.read(ids))
    gain = learned.next_token()[once[10]] - skipped.next_token()[once[10]]
    assert gain > 0.5


def test_a_rule_sees_the_largest_length_of_the_text() -> None:
    """The budget covers all possible chunks, so the prompt alone does not spend it."""
    short, long = (text_of("memory", "llama", method="random", max_tokens=n) for n in (62, 194))
    first_short, first_long = next(short.read(PROMPT)), next(long.read(PROMPT))
    assert first_short.budget_left == pytest.approx(3 * 3.0)
    assert first_long.budget_left == pytest.approx(9 * 3.0)


def test_more_tokens_than_max_tokens_are_refused() -> None:
    with pytest.raises(PonderTTTError, match="must have at most 60 tokens, got 61"):
        list(text_of("memory", "llama", max_tokens=60).read(PROMPT))


def test_a_prompt_shorter_than_a_chunk_is_read_with_fresh_fast_weights() -> None:
    text = text_of("memory", "gemma3")
    assert list(text.read([5, 6])) == []
    expected = jax.nn.log_softmax(
        backbone_of("gemma3").unembed(backbone_of("gemma3").hidden(jnp.asarray([[2, 5, 6]])))[0, -1]
    )
    np.testing.assert_allclose(text.next_token(), expected, rtol=1e-4, atol=1e-5)


CODE = {
    "a.py": "import os\n\n\ndef first(path):\n    # The name alone.\n    return [os.path.basename(path)]\n"
    * 3,
    "b.py": "VALUE = {1: (2, 3)}\n" * 4,
    "z.py": "class Last:\n    def __init__(self, items):\n        self.items = sorted(items)  # in order\n"
    * 3,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with a random model, a policy trained for it, and a repository whose last file is continued."""
    write_model(tmp_path / "model")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "all").mkdir()
    for name, text in CODE.items():
        (tmp_path / "all" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    facts = {
        "fast_weights": "memory",
        "budget": {"mean": 3.5},
        "model_digest": open_model(load("config.yaml"), "tiny", print).digest,
        "module_digest": "untrained",
    }
    save_policy(learned_policies()[MethodName("regression")], tmp_path / "policy", facts, [])
    return tmp_path


def reading(policy: MethodName | Path) -> Request:
    return Request(load("config.yaml"), "tiny", FastWeightsName("memory"), policy, None, 0, None, ALONE)


def test_random_actions_depend_on_the_content_of_a_path_and_not_on_its_spelling(place: Path) -> None:
    """The table shows the path as it was typed."""
    paths = [Path("all"), place / "all", Path("all/../all")]
    steps = [list(score_paths([path], reading(MethodName("random")), print)) for path in paths]
    assert [run[0].stream_id for run in steps] == [str(path) for path in paths]
    actions = [[step.action for step in run] for run in steps]
    assert len(set(actions[0])) > 1
    assert actions[0] == actions[1] == actions[2]
    (place / "all" / "b.py").write_text(CODE["b.py"].replace("1", "4"))
    changed = [step.action for step in score_paths(paths[:1], reading(MethodName("random")), print)]
    assert changed != actions[0]


def test_a_trained_policy_sees_the_same_in_score_and_complete(
    place: Path,
) -> None:
    request = reading(place / "policy")
    scored = list(score_paths([Path("all")], request, print))
    # One token more leaves the text as many chunks as it has; the last one is not full.
    continuation = Continuation(1, Sampling())
    found: list[Step] = []
    repository = [Path("all/a.py"), Path("all/b.py")]
    list(
        complete_text(CODE["z.py"], Path("all/z.py"), repository, request, continuation, print, found.append)
    )
    full = [step for step in scored if step.n_tokens == CONFIG["chunk_size"]]
    assert len(full) == len(scored) - 1 > 8
    for ours, theirs in zip(found[: len(full)], full, strict=True):
        assert ours.features is not None
        assert ours.features == theirs.features
        assert (ours.action, ours.loss, ours.n_bytes) == (theirs.action, theirs.loss, theirs.n_bytes)
    assert len({step.action for step in full}) > 1
    # Features that depend on the language and on where documents start tell chunks apart.
    for name in ("comment_share", "keyword_share", "document_boundary"):
        values = {step.features[index(name)] for step in full if step.features is not None}
        assert len(values) > 1 and max(values) > 0, name


def test_a_prompt_follows_its_repository_under_its_own_name(place: Path) -> None:
    tokenizer = open_model(load("config.yaml"), "tiny", print).tokenizer
    assert tokenizer is not None
    before = [Document(name, CODE[name]) for name in ("a.py", "b.py")]
    ids, source = prompted(before, Document("z.js", "let x"), "src/z.js", tokenizer, print)
    starts = source.document_starts
    assert [
        tokenizer.decode(ids[a:b]).removesuffix("<|endoftext|>") for a, b in pairwise([*starts, len(ids)])
    ] == [
        CODE["a.py"],
        CODE["b.py"],
        "let x",
    ]
    assert [ids[start - 1] for start in starts[1:]] == [tokenizer.eot_id] * 2
    assert source.language == "JavaScript"
    assert prompted(before, Document("z.js", "let x"), "./src/z.js", tokenizer, print) == (ids, source)
    assert source.document_paths == ("a.py", "b.py", "z.js")
    # Standard input has no name to go by: its language is that of the repository, if there is one.
    assert prompted(before, Document("-", "let x"), "-", tokenizer, print)[1].language == "Python"
    alone = prompted([], Document("-", "let x"), "-", tokenizer, print)[1]
    assert (alone.language, alone.document_starts) == ("any", (0,))
