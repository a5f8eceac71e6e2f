"""The frozen pass runs once and changes nothing; with the loop after it, nothing leaks from text to loss."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
import pytest

from ponderttt.contexts import ALONE, Context
from ponderttt.corpus.streams import Stream, Tokens, cut_chunks
from ponderttt.errors import CorruptFileError, PonderTTTError
from ponderttt.fast_weights.base import FastWeights
from ponderttt.fast_weights.build import build
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.frozen.frozen_pass import open_frozen_pass, run_frozen_pass
from ponderttt.frozen.model import FrozenModel
from ponderttt.loop.methods import Spending, arm_of, protocol_of
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.scoring import score_stream
from ponderttt.loop.stream import run_streams
from ponderttt.models.backbone import random_backbone
from ponderttt.models.suffix import suffix_weights
from ponderttt.models.tensors import model_digest
from ponderttt.names import METHODS, ORACLE_METHODS, FastWeightsName, MethodName
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.calibration import calibrate
from ponderttt.records.step import Step
from ponderttt.records.steps import frozen_steps
from ponderttt.settings.context import ContextConfig
from ponderttt.settings.fast_weights import (
    FastWeightsConfig,
    LoRAConfig,
    MemoryConfig,
    SuffixConfig,
    TTTConfig,
)
from ponderttt.settings.rules import RulesConfig
from tiny_llama import tiny_llama
from tiny_policies import learned_policies

CHUNK, VOCABULARY = 32, 96
ENDS = ContextConfig()
CONFIG = tiny_llama(vocab_size=VOCABULARY, max_context=3 * CHUNK)
FAST = FastWeightsConfig(
    ttt=TTTConfig(heads=2, head_dim=8),
    lora=LoRAConfig(rank=4, inner_rate=0.05, token_share=0.5),
    suffix=SuffixConfig(blocks=1, rank=4, inner_rate=0.05),
    memory=MemoryConfig(capacity=4 * CHUNK),
)
KINDS = ("ttt", "lora", "suffix", "memory")
#: Oracles look ahead, so that their choices depend on what comes.
LOOP_METHODS = [method for method in METHODS if method not in ORACLE_METHODS]
#: Signals of made-up training streams.
CALIBRATION = calibrate(
    {
        "entropy": np.linspace(3.0, 5.0, 21),
        "loss": np.linspace(4.0, 7.0, 21),
        "reconstruction": np.linspace(-1.0, 40.0, 21),
    }
)


@pytest.fixture(scope="module")
def backbone():
    return random_backbone(CONFIG, jax.random.key(0))


@pytest.fixture(scope="module")
def model(backbone):
    return FrozenModel(backbone)


def stream_of(tokens: np.ndarray, name: str) -> Stream:
    whole = Tokens(tokens.astype(np.int32), np.ones(len(tokens), np.int32), np.zeros(1, np.int32), ("a.py",))
    return cut_chunks(whole, CHUNK, VOCABULARY, name, "Python")


def real_tokens(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, size=length)


@pytest.fixture(scope="module")
def corpus() -> list[Stream]:
    """Three streams; the second ends in the middle of a chunk."""
    return [
        stream_of(real_tokens(s, n), str(s)) for s, n in ((1, 3 * CHUNK + 1), (2, 2 * CHUNK - 9), (3, 65))
    ]


def frozen(
    model: FrozenModel, streams: Sequence[Stream], folder, context: Context = ALONE
) -> list[FrozenChunks]:
    run_frozen_pass(
        model.backbone,
        streams,
        folder,
        context=context,
        config=ENDS,
        keep_hidden=True,
        keep_split=True,
        facts={},
    )
    return open_frozen_pass(folder, streams, "make table")[0]


@pytest.fixture(scope="module")
def passed(model, corpus, tmp_path_factory):
    return frozen(model, corpus, tmp_path_factory.mktemp("hidden"))


def awake(kind: str) -> FastWeights:
    """A module whose zero matrix is random, as after training."""
    module = build(kind, CONFIG.width, FAST, 0, CONFIG)
    if kind == "memory":
        return module
    parameter = getattr(module, {"ttt": "output", "lora": "up", "suffix": "delta"}[kind])
    parameter[...] = 0.3 * jax.random.normal(jax.random.key(5), parameter[...].shape)
    return module


@pytest.fixture(scope="module")
def programs():
    """Of awake modules; compiled once for the whole file."""
    return {kind: ModulePrograms(awake(kind)) for kind in KINDS}


SPENDING = Spending(3.0, NOMINAL_COSTS, RulesConfig(), CALIBRATION, learned_policies())


def steps_of(
    model: FrozenModel, programs: ModulePrograms, streams: Sequence[FrozenChunks], methods: Sequence[str]
) -> dict[str, list[Step]]:
    """Steps of methods with one module; the streams advance together."""
    arms = [arm_of(MethodName(method), programs, SPENDING, 0) for method in methods]
    suffix = suffix_weights(model.backbone)
    return run_streams(arms, Group(streams, model.backbone.unembedding, suffix, [*streams[1:], streams[0]]))


def test_the_pass_scores_with_the_plain_model_s_own_probabilities(backbone, corpus, passed):
    for stream, chunks in zip(corpus, passed, strict=True):
        for t in range(stream.n_chunks):
            logits = backbone.unembed(backbone.hidden(stream.input_ids[t][None])[0])
            log = np.asarray(jax.nn.log_softmax(logits))
            nll = -log[np.arange(CHUNK), np.minimum(stream.targets[t], VOCABULARY - 1)]
            entropy = -(np.exp(log) * log).sum(-1)
            mask = stream.mask[t]
            np.testing.assert_allclose(chunks.nll_frozen[t], np.where(mask, nll, 0), rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(chunks.entropy[t][mask], entropy[mask], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(chunks.loss_frozen[t], nll[mask].mean(), rtol=1e-4)


def test_a_run_without_the_cache_equals_a_run_with_it(model, programs, corpus, passed, tmp_path):
    settings = {"context": ALONE, "config": ENDS, "keep_hidden": False, "keep_split": True, "facts": {}}
    run_frozen_pass(model.backbone, corpus, tmp_path, **settings)
    with pytest.raises(PonderTTTError, match="not kept"):
        open_frozen_pass(tmp_path, corpus, "make table")
    without = open_frozen_pass(tmp_path, corpus, "make table", recompute=model)[0]
    for cached, again in zip(passed, without, strict=True):
        for name in ("hidden", "split", "features", "nll_frozen", "entropy", "flops", "suffix_flops"):
            assert np.array_equal(getattr(cached, name), getattr(again, name)), name
    for kind in KINDS:
        a, b = (
            steps_of(model, programs[kind], streams, ["update_2"])["update_2"]
            for streams in (passed, without)
        )
        assert [s.loss for s in a] == [s.loss for s in b]


def test_context_is_the_chunk_before_and_changes_only_chunks_that_have_one(model, corpus, passed, tmp_path):
    wide = frozen(model, corpus, tmp_path, context=Context("context", 1))
    assert wide[0].loss_frozen[0] == pytest.approx(passed[0].loss_frozen[0], rel=1e-5)
    assert wide[0].loss_frozen[1] != pytest.approx(passed[0].loss_frozen[1], rel=1e-5)
    both = corpus[0].input_ids[:2].reshape(1, -1)
    hidden = model.backbone.hidden(both)[0, CHUNK:]
    np.testing.assert_allclose(wide[0].hidden[1], hidden, rtol=1e-4, atol=1e-4)
    assert wide[0].flops[1] > 1.9 * wide[0].flops[0]


def test_more_context_than_the_model_holds_is_refused(backbone, corpus, tmp_path):
    with pytest.raises(PonderTTTError, match="context holds 96; lower chunk_size or the number of chunks"):
        run_frozen_pass(
            backbone, corpus, tmp_path, context=Context("window", 3), config=ENDS, keep_hidden=True, facts={}
        )
    assert not list(tmp_path.glob("stream-*"))


def test_an_interrupted_pass_goes_on_where_it_stopped(model, corpus, passed, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    arguments = {"context": ALONE, "config": ENDS, "keep_hidden": True, "facts": {"code": "1"}}
    with pytest.raises(KeyboardInterrupt):
        run_frozen_pass(model.backbone, corpus, tmp_path, progress=stop, **arguments)
    first = (tmp_path / "stream-00000.safetensors").stat().st_mtime_ns
    seen: list[int] = []
    run_frozen_pass(model.backbone, corpus, tmp_path, progress=lambda done, _: seen.append(done), **arguments)
    assert seen[0] == corpus[0].n_chunks + 1
    assert (tmp_path / "stream-00000.safetensors").stat().st_mtime_ns == first
    resumed = open_frozen_pass(tmp_path, corpus, "make table")[0]
    for a, b in zip(resumed, passed, strict=True):
        assert np.array_equal(a.hidden, b.hidden)
        assert np.array_equal(a.nll_frozen, b.nll_frozen)
    # Other settings do not continue it.
    seen.clear()
    arguments["facts"] = {"code": "2"}
    run_frozen_pass(model.backbone, corpus, tmp_path, progress=lambda done, _: seen.append(done), **arguments)
    assert seen[0] == 1


def test_a_damaged_cache_file_is_named(model, corpus, tmp_path):
    frozen(model, corpus, tmp_path)
    file = tmp_path / "stream-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"stream-00001.safetensors: its sha256.*make table"):
        open_frozen_pass(tmp_path, corpus, "make table")


def test_nothing_that_runs_moves_the_backbone(model, programs, passed):
    before = model_digest(model.backbone.graph, model.backbone.params)
    assert before == model.backbone.digest
    for kind in KINDS:
        steps_of(model, programs[kind], passed, ["update_4"])
    assert model_digest(model.backbone.graph, model.backbone.params) == before


@pytest.mark.parametrize(
    "kind",
    [kind if kind in ("ttt", "suffix") else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
)
def test_from_text_to_loss_nothing_before_a_changed_token_moves(
    kind, model, programs, passed, corpus, tmp_path
):
    """The whole path: a token of the text, the backbone, the cache, the loop, every method."""
    position = CHUNK + 20
    tokens = real_tokens(1, 3 * CHUNK + 1)
    tokens[position] = (tokens[position] + 1) % VOCABULARY
    other = frozen(model, [stream_of(tokens, "1"), *corpus[1:]], tmp_path)
    methods = [m for m in LOOP_METHODS if FastWeightsName(kind).runs(MethodName(m))]
    before, after = (steps_of(model, programs[kind], streams, methods) for streams in (passed, other))
    for method in methods:
        moved = []
        for a, b in zip(before[method], after[method], strict=True):
            if a.stream_id != "1":
                assert np.array_equal(a.nll, b.nll), (method, a.stream_id)
            else:
                moved += [a.chunk_index * CHUNK + i for i in np.flatnonzero(a.nll != b.nll)]
        first_allowed = position - 1
        if protocol_of(MethodName(method)) == "transductive":
            assert min(moved) < first_allowed, "the planted leak was not caught"
        else:
            assert min(moved) == first_allowed, method


def test_the_plain_arm_is_the_frozen_pass(passed):
    steps = frozen_steps(passed)
    assert [s.loss for s in steps] == [x for chunks in passed for x in chunks.loss_frozen]
    assert {s.steps for s in steps} == {0}
    assert all(s.seconds > 0 and s.flops > 0 for s in steps)


@pytest.mark.parametrize("kind", ["ttt", "lora", "suffix"])
def test_an_untrained_adapter_without_updates_is_the_plain_arm(kind, model, passed):
    """To rounding: the plain arm streams its logits, arms share theirs."""
    untrained = ModulePrograms(build(kind, CONFIG.width, FAST, 0, CONFIG))
    steps = steps_of(model, untrained, passed, ["skip"])["skip"]
    found = {(step.stream_id, step.chunk_index): step.loss for step in steps}
    for plain in frozen_steps(passed):
        assert found[plain.stream_id, plain.chunk_index] == pytest.approx(plain.loss, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "method"),
    [("ttt", "update_2"), ("lora", "entropy"), ("suffix", "adaptive"), ("memory", "reconstruction")],
)
def test_scoring_live_equals_scoring_from_the_cache(kind, method, model, programs, corpus, passed):
    suffix = suffix_weights(model.backbone)
    live = list(score_stream(model, corpus[0], awake(kind), MethodName(method), SPENDING, suffix=suffix))
    cached = steps_of(model, programs[kind], passed[:1], [method])[method]
    for name in ("loss", "action", "features", "flops"):
        assert [getattr(s, name) for s in live] == [getattr(s, name) for s in cached], name


def test_the_plain_backbone_scored_live_is_the_frozen_pass(model, corpus, passed):
    plain = list(score_stream(model, corpus[0], None, MethodName("skip"), SPENDING))
    assert [s.loss for s in plain] == list(passed[0].loss_frozen)
