"""The frozen pass keeps what policies observe, and states at the split layer where they are asked for."""

from __future__ import annotations

import dataclasses
import time

import jax
import numpy as np
import pytest

from ponderttt.contexts import ALONE, Context
from ponderttt.corpus.streams import Stream, Tokens, cut_chunks
from ponderttt.errors import PonderTTTError
from ponderttt.features.frozen import frozen_features
from ponderttt.features.table import FROZEN, frozen_index
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.frozen.frozen_pass import open_frozen_pass, run_frozen_pass
from ponderttt.frozen.live import live_stream
from ponderttt.frozen.model import FrozenModel, chunk_text
from ponderttt.frozen.reading import StreamReader
from ponderttt.models.backbone import random_backbone
from ponderttt.models.losses import SKETCH_SIZE
from ponderttt.models.tokenizer import Tokenizer
from ponderttt.settings.context import ContextConfig
from ponderttt.workflow.stages.hidden import keeps_hidden
from tiny_llama import tiny_llama

CHUNK, VOCABULARY, END = 24, 64, 63
CONFIG = tiny_llama(layers=4, max_context=2 * CHUNK)


class Letters(Tokenizer):
    """A tokenizer whose token i is the i-th character from a space on."""

    def __init__(self) -> None:
        n_bytes = np.ones(VOCABULARY, np.int32)
        super().__init__(VOCABULARY, VOCABULARY, END, digest="", json="", _core=None, _bytes=n_bytes)

    def decode(self, ids) -> str:
        return "".join(chr(32 + i) for i in ids)


@pytest.fixture(scope="module")
def model() -> FrozenModel:
    backbone = random_backbone(CONFIG, jax.random.key(0))
    return FrozenModel(dataclasses.replace(backbone, tokenizer=Letters()))


@pytest.fixture(scope="module")
def stream() -> Stream:
    """Three chunks, of which the last has five tokens; documents begin at 0, 30 and 40."""
    ids = np.random.default_rng(0).integers(0, END, 2 * CHUNK + 6).astype(np.int32)
    ids[[29, 39]] = END
    starts = np.asarray([0, 30, 40], np.int32)
    return cut_chunks(
        Tokens(ids, np.ones_like(ids), starts, ("a", "b", "c")), CHUNK, VOCABULARY, "s", "Python"
    )


def alone(model: FrozenModel, stream: Stream, index: int, previous: np.ndarray | None = None) -> FrozenChunks:
    """Read one chunk without context."""
    return StreamReader(model, stream, ALONE, ContextConfig()).chunk(index, previous)


def passed(
    model, stream, folder, context: Context = ALONE, split: bool = True, hidden: bool = True, again=None
):
    run_frozen_pass(
        model.backbone,
        [stream],
        folder,
        context=context,
        config=ContextConfig(),
        keep_hidden=hidden,
        keep_split=split,
        facts={},
    )
    (chunks,), facts = open_frozen_pass(folder, [stream], "make table", again)
    return chunks, facts


@pytest.fixture(scope="module")
def chunks(model, stream, tmp_path_factory):
    return passed(model, stream, tmp_path_factory.mktemp("hidden"))[0]


def of(chunks, name: str) -> np.ndarray:
    """A feature of every chunk."""
    return chunks.features[:, frozen_index(name)]


def test_features_are_those_of_the_model_s_own_probabilities_and_of_the_stream(model, stream, chunks):
    assert chunks.features.shape == (3, len(FROZEN))
    assert np.all(np.isfinite(chunks.features))
    for t in range(3):
        real = stream.mask[t]
        hidden = np.asarray(model.backbone.hidden(stream.input_ids[t][None])[0])
        likely = np.asarray(jax.nn.softmax(model.backbone.unembed(hidden))).max(-1)
        assert of(chunks, "confidence_mean")[t] == pytest.approx(likely[real].mean(), rel=1e-4)
        assert of(chunks, "entropy_mean")[t] == pytest.approx(chunks.entropy[t][real].mean(), rel=1e-5)
        assert of(chunks, "perplexity")[t] == pytest.approx(np.exp(chunks.loss_frozen[t]), rel=1e-5)
        assert of(chunks, "hidden_max")[t] == pytest.approx(hidden[real].max(), rel=1e-4)
    np.testing.assert_allclose(of(chunks, "valid_tokens"), [1, 1, 5 / CHUNK])
    # One document begins in the first chunk, two in the second.
    np.testing.assert_allclose(of(chunks, "document_boundary"), [1 / 2, 2 / 3, 0])


def test_a_chunk_is_compared_with_the_one_before_it(chunks):
    assert of(chunks, "reconstruction_error")[0] == 1
    assert np.all(of(chunks, "reconstruction_error")[1:] < 1)
    assert of(chunks, "similarity_mean")[0] == 0
    assert np.all(of(chunks, "similarity_mean")[1:] != 0)


def test_a_repeated_chunk_is_found_in_the_one_before_it(model, stream):
    chunked = ("input_ids", "targets", "mask", "n_bytes")
    twice = dataclasses.replace(stream, **{name: getattr(stream, name)[[0, 0]] for name in chunked})
    previous = model.together(twice, 0, 0).hidden
    features = alone(model, twice, 1, previous).features
    assert features[frozen_index("similarity_mean")] == pytest.approx(1, abs=1e-4)
    assert features[frozen_index("reconstruction_error")] < 0.2


def test_every_signal_of_the_backbone_reaches_a_feature(model, stream, chunks):
    """Other weights of the last blocks, same text: only features of the text stay."""
    other = FrozenModel(dataclasses.replace(random_backbone(CONFIG, jax.random.key(1)), tokenizer=Letters()))
    found = alone(other, stream, 0).features
    same = {name for name, a, b in zip(FROZEN, found, chunks.features[0], strict=True) if a == b}
    assert {"distinct_token_ratio", "document_boundary", "valid_tokens"} <= same
    assert not same & {"attention_range", "attention_entropy_mean", "gradient_variance", "confidence_q50"}


def test_the_text_of_a_chunk_is_what_it_reads_and_nothing_else(stream):
    def plain(ids) -> str:
        return Letters().decode(ids)

    ids = stream.input_ids.reshape(-1)
    assert chunk_text(stream, 0, Letters()) == plain(ids[:24])
    assert chunk_text(stream, 1, Letters()) == "\n".join(
        (plain(ids[24:29]), plain(ids[30:39]), plain(ids[40:48]))
    )
    assert chunk_text(stream, 2, Letters()) == plain(ids[48:53])
    assert chunk_text(stream, 0, None) == ""


def test_split_states_are_the_prefix_and_make_the_hidden_states(model, stream, chunks):
    assert model.backbone.split_layer == CONFIG.layers - 2
    for t in range(3):
        tokens = stream.input_ids[t][None]
        np.testing.assert_allclose(chunks.split[t], model.backbone.prefix(tokens)[0], atol=1e-6)
        again = model.backbone.suffix(chunks.split[t][None], tokens < VOCABULARY)[0]
        np.testing.assert_allclose(chunks.hidden[t], again, atol=1e-5)


def test_split_states_are_kept_only_if_asked_for(model, stream, chunks, tmp_path):
    without, facts = passed(model, stream, tmp_path / "without", split=False)
    assert without.split is None
    assert facts["keep_split"] is False
    assert facts["split_layer"] == 2
    assert np.array_equal(without.hidden, chunks.hidden)
    assert np.array_equal(without.features, chunks.features)
    neither, _ = passed(model, stream, tmp_path / "neither", hidden=False, again=model)
    size = (tmp_path / "neither" / "stream-00000.safetensors").stat().st_size
    assert size < chunks.hidden.nbytes
    assert np.array_equal(neither.split, chunks.split)
    assert np.array_equal(neither.hidden, chunks.hidden)


def test_with_context_only_the_chunk_s_own_positions_are_kept_and_observed(model, stream, chunks, tmp_path):
    wide, _ = passed(model, stream, tmp_path, context=Context("context", 1))
    both = stream.input_ids[:2].reshape(1, -1)
    np.testing.assert_allclose(wide.split[1], model.backbone.prefix(both)[0, CHUNK:], atol=1e-6)
    np.testing.assert_allclose(wide.hidden[1], model.backbone.hidden(both)[0, CHUNK:], atol=1e-5)
    assert wide.features.shape == chunks.features.shape
    assert np.array_equal(wide.features[0], chunks.features[0])
    # Attention reaches into the chunk before.
    assert of(wide, "attention_range")[1] > 1.5 * of(chunks, "attention_range")[1]
    assert of(wide, "attention_entropy_mean")[1] > of(chunks, "attention_entropy_mean")[1]


def test_the_suffix_is_a_known_part_of_the_cost(chunks):
    assert np.all((chunks.suffix_flops > 0) & (chunks.suffix_flops < chunks.flops))
    # Two blocks of four on either side; the suffix also observes, the prefix also embeds.
    assert np.all(np.abs(chunks.suffix_flops / chunks.flops - 0.5) < 0.1)
    assert np.all((chunks.suffix_seconds > 0) & (chunks.suffix_seconds < chunks.seconds))


def test_the_seconds_of_the_features_are_charged(model, stream, monkeypatch):
    def slow(signals):
        time.sleep(0.05)
        return frozen_features(signals)

    alone(model, stream, 0)
    monkeypatch.setattr("ponderttt.frozen.model.frozen_features", slow)
    assert alone(model, stream, 0).feature_seconds > 0.05
    assert live_stream(StreamReader(model, stream, ALONE, ContextConfig())).feature_seconds[0] > 0.05


def test_what_only_features_need_is_counted_apart(model, stream, chunks):
    """A sketched gradient of 8 coordinates: 2 FLOPs a coordinate, token and word, and little else.

    From the second chunk on, also two products of T tokens with those of the preceding chunk.
    """
    tokens, words = stream.input_ids.shape[1], CONFIG.vocab_size
    sketch = 2 * SKETCH_SIZE * tokens * words
    assert sketch <= chunks.feature_flops[0] < 1.5 * sketch
    products = 2 * 2 * tokens * tokens * CONFIG.width
    compared = chunks.feature_flops[1:] - chunks.feature_flops[0]
    assert np.all((compared >= products) & (compared < 1.5 * products))
    assert np.all(chunks.projection_flops >= 2 * CONFIG.width * tokens * words)
    assert np.all(chunks.projection_seconds > 0)


def test_a_stream_read_live_has_the_same_fields(model, stream, chunks):
    live = live_stream(StreamReader(model, stream, ALONE, ContextConfig()))
    for t in range(3):
        for name in (
            "features",
            "split",
            "hidden",
            "suffix_flops",
            "flops",
            "projection_flops",
            "feature_flops",
        ):
            assert np.array_equal(getattr(live, name)[t], getattr(chunks, name)[t]), name
    # A reader that starts in the middle compares with the preceding chunk too.
    assert np.array_equal(
        live_stream(StreamReader(model, stream, ALONE, ContextConfig())).features[2], chunks.features[2]
    )


def test_a_model_without_blocks_to_observe_is_refused():
    backbone = random_backbone(CONFIG, jax.random.key(0), split_layer=CONFIG.layers)
    with pytest.raises(PonderTTTError, match="split_layer 4 leaves no block"):
        FrozenModel(backbone)


def test_the_size_of_a_cache_counts_split_states():
    one_chunk = 4 * 512 * 576
    assert keeps_hidden("auto", one_chunk, 1, 512, 576)
    assert not keeps_hidden("auto", one_chunk, 1, 512, 576, keep_split=True)
    assert keeps_hidden("auto", 2 * one_chunk, 1, 512, 576, keep_split=True)
    assert keeps_hidden("on", 0, 1, 512, 576, keep_split=True)
    assert not keeps_hidden("off", 2 * one_chunk, 1, 512, 576)
