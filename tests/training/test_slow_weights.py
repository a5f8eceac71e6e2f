"""Training moves the slow weights, all of them and nothing else, and survives being killed."""

from __future__ import annotations

import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.errors import CorruptFileError
from ponderttt.fast_weights.base import Readout
from ponderttt.fast_weights.build import load_slow_weights, save_slow_weights
from ponderttt.files.checkpoints import Checkpoints
from ponderttt.files.parameters import parameters
from ponderttt.names import KINDS
from ponderttt.settings.training import TrainingConfig
from ponderttt.training.slow_weights import schedule, train_slow_weights, window_chunks
from tiny_streams import CHUNK, fresh, make_stream, random_tokens, suffix_block

CONFIG = TrainingConfig(
    epochs=2, learning_rate=1e-2, window_chunks=2, outer_tokens=32, checkpoint_every_steps=1
)


@pytest.fixture(scope="module")
def split():
    """Streams to train on and one to validate on."""
    return [make_stream(f"t{i}", random_tokens(20 + i, 3)) for i in range(3)], [
        make_stream("v", random_tokens(30, 2))
    ]


@pytest.fixture(scope="module")
def trained(split, unembedding, tmp_path_factory):
    """For each kind: the module before, after, and the log."""
    results = {}
    for kind in KINDS:
        module = fresh(kind)
        readout = Readout(unembedding, suffix=suffix_block())
        with Checkpoints(tmp_path_factory.mktemp("c"), kind, {}) as checkpoints:
            after, log = train_slow_weights(module, *split, readout, CONFIG, 0, checkpoints)
        results[kind] = (module, after, log)
    return results


def bytes_of(module) -> str:
    total = hashlib.sha256()
    for name, value in sorted(parameters(module).items()):
        total.update(name.encode() + np.asarray(value).tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_every_slow_weight_has_a_gradient_and_moves(kind, trained):
    before, after, _ = trained[kind]
    old, new = parameters(before), parameters(after)
    still = [name for name in old if np.array_equal(old[name], new[name])]
    assert not still


@pytest.mark.parametrize("kind", ["ttt", "lora", "suffix"])
def test_every_window_trains(kind, trained):
    """In the middle of a stream too: truncation leaves no step without a gradient.  An empty memory has none."""
    assert min(line["grad_norm"] for line in trained[kind][2] if "grad_norm" in line) > 0.01


@pytest.mark.parametrize("kind", ["ttt", "lora"])
def test_training_lowers_the_loss_that_it_trains(kind, trained):
    _, _, log = trained[kind]
    first, second = (
        np.mean([line["loss"] for line in log if "loss" in line and line["epoch"] == e]) for e in (0, 1)
    )
    assert second < first
    assert all(
        math.isfinite(line["grad_norm"]) and line["grad_norm"] > 0 for line in log if "grad_norm" in line
    )


def test_the_best_epoch_on_validation_is_what_comes_out(split, unembedding, tmp_path):
    """With a rate that wrecks the adapter in its second epoch, the first one's weights come out."""
    module = fresh("lora")
    with Checkpoints(tmp_path, "x", {}) as checkpoints:
        config = TrainingConfig(
            epochs=2, learning_rate=3.0, window_chunks=2, warmup_share=0.9, outer_tokens=None
        )
        trained, log = train_slow_weights(module, *split, Readout(unembedding), config, 0, checkpoints)
        rows = [line for line in log if "validation_loss" in line]
        kept = checkpoints.restore(None)
    means = [0.5 * (row["validation_loss"] + row["validation_loss_skip"]) for row in rows]
    assert means[0] < means[1]
    assert kept is not None
    assert bytes_of(trained) != bytes_of(module)


def test_the_projection_of_the_backbone_is_not_touched(split, unembedding, tmp_path):
    before = hashlib.sha256(np.asarray(unembedding).tobytes()).hexdigest()
    with Checkpoints(tmp_path, "x", {}) as checkpoints:
        train_slow_weights(fresh("lora"), *split, Readout(unembedding), CONFIG, 0, checkpoints)
    assert hashlib.sha256(np.asarray(unembedding).tobytes()).hexdigest() == before


@pytest.mark.parametrize("stop_after", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(
    trained, split, unembedding, tmp_path, stop_after
):
    class Killed(Exception):
        pass

    def kill(step: int, total: int, loss: float) -> None:
        if step == stop_after + 1:
            raise Killed

    with Checkpoints(tmp_path, "x", {}) as checkpoints, pytest.raises(Killed):
        train_slow_weights(fresh("lora"), *split, Readout(unembedding), CONFIG, 0, checkpoints, kill)
    seen = []
    with Checkpoints(tmp_path, "x", {}) as checkpoints:
        resumed, log = train_slow_weights(
            fresh("lora"),
            *split,
            Readout(unembedding),
            CONFIG,
            0,
            checkpoints,
            lambda step, *_: seen.append(step),
        )
    assert seen[0] == stop_after + 1
    assert bytes_of(resumed) == bytes_of(trained["lora"][1])
    assert log == trained["lora"][2]


def test_seeds_are_independent_and_repeatable(split, unembedding, tmp_path, trained):
    with Checkpoints(tmp_path, "other", {"seed": 1}) as checkpoints:
        other, _ = train_slow_weights(fresh("lora", 1), *split, Readout(unembedding), CONFIG, 1, checkpoints)
    assert bytes_of(other) != bytes_of(trained["lora"][1])


def test_each_epoch_reads_every_chunk_once_under_one_action_a_stream():
    lengths = [3, 5, 1]
    windows = schedule(lengths, CONFIG, seed=0, epoch=0)
    seen = [(w.stream, t) for w in windows for t in range(w.start, min(w.start + 2, lengths[w.stream]))]
    assert sorted(seen) == [(s, t) for s, n in enumerate(lengths) for t in range(n)]
    for stream in range(3):
        mine = [w for w in windows if w.stream == stream]
        assert len({w.action for w in mine}) == 1
        assert [w.start for w in mine] == sorted(w.start for w in mine)
    assert windows != schedule(lengths, CONFIG, seed=0, epoch=1)
    assert windows == schedule(lengths, CONFIG, seed=0, epoch=0)


def test_a_window_beyond_the_end_of_a_stream_is_masked():
    stream = make_stream("s", random_tokens(5, 3))
    chunks = window_chunks(stream, 2, 2)
    assert chunks.mask[0].all()
    assert not chunks.mask[1].any()
    assert chunks.hidden.shape[:2] == (2, CHUNK)


def test_slow_weights_survive_a_round_trip_and_nothing_less(trained, tmp_path):
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "w.safetensors"
    after = trained["ttt"][1]
    save_slow_weights(after, path)
    assert bytes_of(load_slow_weights(fresh("ttt", 5), path, "make table")) == bytes_of(after)
    stored = load_file(path)
    stored.pop("gate")
    save_file(stored, path)
    with pytest.raises(CorruptFileError, match="gate"):
        load_slow_weights(fresh("ttt"), path, "make table")
    stored["gate"] = np.zeros((2, 2), np.float32)
    save_file(stored, path)
    with pytest.raises(CorruptFileError, match="gate has shape"):
        load_slow_weights(fresh("ttt"), path, "make table")


def test_learning_reaches_through_the_update_to_its_rate(unembedding):
    """The inner rate of LoRA is trained by the loss of the chunk after, to first order."""
    from flax import nnx

    from ponderttt.actions import Action
    from ponderttt.training.slow_weights import window_loss

    stream = make_stream("s", random_tokens(6, 2))
    graph, slow = nnx.split(fresh("lora"))
    chunks = jax.tree.map(jnp.asarray, window_chunks(stream, 0, 2))

    def loss(slow, action):
        module = nnx.merge(graph, slow)
        return window_loss(
            module, module.reset(), chunks, Readout(unembedding), action, jax.random.key(0), None
        ).loss

    gradient = jax.jit(jax.grad(loss))
    learning = gradient(slow, int(Action.UPDATE_1))["log_rate"][...]
    assert float(jnp.abs(learning).sum()) > 0
    assert float(jnp.abs(gradient(slow, int(Action.SKIP))["log_rate"][...]).sum()) == 0
