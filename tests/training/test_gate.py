"""A gate learns through the stream, moves alone, does what it says, and finds what was planted."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from planted import PlantedWeights, best_gain, noise_normaliser, planted_stream, worth
from ponderttt.actions import Action
from ponderttt.errors import ConfigError
from ponderttt.fast_weights.base import FastWeights, Readout
from ponderttt.features.normalise import Normaliser
from ponderttt.features.table import NAMES
from ponderttt.files.checkpoints import Checkpoints
from ponderttt.loop.arm import Arm
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.stream import run_streams
from ponderttt.policies.base import Decision
from ponderttt.policies.gumbel import SoftGate, gate_logits
from ponderttt.policies.networks import Gate
from ponderttt.policies.rules import Schedule, without_rank
from ponderttt.seeds import named_key
from ponderttt.settings.gate import GateConfig
from ponderttt.training.gate import train_gate
from ponderttt.training.gate_stream import gate_stream, play
from tiny_streams import make_stream, random_tokens, tree_close

KINDS = ("ttt", "lora", "memory")
#: Tiny streams are not like real ones; what a gate sees is spread out a little.
NORMALISER = Normaliser(np.full(len(NAMES), 0.1), np.full(len(NAMES), 3.0))
CONFIG = GateConfig(epochs=2, checkpoint_every_steps=2)
SIZE = 4
COMPILED: dict[Any, Any] = {}


def bytes_of(module: nnx.Module) -> str:
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(nnx.split(module)[1]):
        total.update(np.asarray(leaf).tobytes())
    return total.hexdigest()


def fresh_gate(seed: int = 0) -> Gate:
    return Gate(32, rngs=nnx.Rngs(named_key(seed, "gate")))


def player(module: FastWeights, kind: str) -> Any:
    """A compiled ``play`` of a module and its gradient in the gate's weights, of hard gates by the stream's loss alone."""
    config = GateConfig(cost_weight=0.0, ttt_weight=0.0) if kind == "hard" else CONFIG
    graph, slow = nnx.split(module)
    gate_graph, _ = nnx.split(fresh_gate())
    if (graph, kind) not in COMPILED:

        def loss(weights: Any, slow: Any, stream: Any, unembedding: Any, key: Any) -> Any:
            gate, module = nnx.merge(gate_graph, weights), nnx.merge(graph, slow)
            played = play(
                module, gate, NORMALISER, stream, Readout(unembedding), config, kind, key, jnp.asarray(0.5)
            )
            return played.loss, played

        COMPILED[graph, kind] = jax.jit(jax.value_and_grad(loss, has_aux=True))
    run = COMPILED[graph, kind]

    def plays(gate: Gate, stream: Any, unembedding: Any, seed: int = 0) -> Any:
        (_, played), slopes = run(nnx.split(gate)[1], slow, stream, unembedding, jax.random.key(seed))
        return played, slopes

    return plays


@pytest.fixture(scope="module")
def tiny() -> list:
    """Streams of different lengths."""
    return [make_stream(f"t{i}", random_tokens(40 + i, 3 + i % 2)) for i in range(3)]


def train(module, streams, unembedding, folder, kind="hard", seed=0, progress=None, config=CONFIG):
    with Checkpoints(folder, "gate", {"seed": seed, "kind": kind}) as checkpoints:
        arguments = (module, streams, Readout(unembedding), NORMALISER, config, kind, seed, checkpoints)
        return train_gate(*arguments, *(() if progress is None else (progress,)))


@pytest.fixture(scope="module")
def trained(tiny, unembedding, awake_modules, tmp_path_factory):
    """For each kind of fast weights: the gate, its log, and the digests of what must not move, before and after."""
    results = {}
    for name, kind in zip(KINDS, ("hard", "hard", "soft"), strict=True):
        module = awake_modules[name]
        before = bytes_of(module), np.asarray(unembedding).tobytes()
        gate, log = train(module, tiny, unembedding, tmp_path_factory.mktemp("c"), kind)
        results[name] = gate, log, before, (bytes_of(module), np.asarray(unembedding).tobytes())
    return results


@pytest.mark.parametrize("name", KINDS)
def test_the_gate_moves_and_nothing_else_does(name, trained):
    gate, log, before, after = trained[name]
    assert before == after
    start, end = nnx.split(fresh_gate())[1], nnx.split(gate)[1]
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), start, end)
    assert all(jax.tree.leaves(moved))
    assert len(log) == 6
    names = {"step", "epoch", "loss", "ce", "ttt", "cost", "temperature", "update_share", "grad_norm"}
    assert all(set(line) == names and np.isfinite(list(line.values())).all() for line in log)
    assert log[0]["grad_norm"] > 0


@pytest.mark.parametrize("name", KINDS)
def test_the_parts_of_the_loss_add_up(name, trained):
    for line in trained[name][1]:
        whole = line["ce"] + CONFIG.ttt_weight * line["ttt"] + CONFIG.cost_weight * line["cost"]
        assert line["loss"] == pytest.approx(whole, rel=1e-5)
        # LoRA's inner loss is the loss itself; the others have one of their own.
        assert (line["ttt"] == 0) == (name == "lora")


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_of_the_gate_has_a_gradient_through_the_stream(
    name, tiny, unembedding, awake_modules
):
    plays = player(awake_modules[name], "hard")
    _, slopes = plays(fresh_gate(), gate_stream(tiny[1], SIZE), unembedding)
    assert all(float(jnp.abs(slope).max()) > 0 for slope in jax.tree.leaves(slopes))


@pytest.mark.parametrize("name", KINDS)
def test_the_decision_executed_is_the_decision_logged(name, tiny, unembedding, awake_modules):
    """The loop, told to act as the gate acted, sees what the gate saw, loses what it lost and ends where it ended."""
    module, stream = awake_modules[name], tiny[1]
    plays, given = player(module, "hard"), gate_stream(stream, SIZE)
    draws = [plays(fresh_gate(), given, unembedding, seed)[0] for seed in range(4)]
    played = next(d for d in draws if 0 < float(d.cost) < 1)
    shares = np.asarray(played.chunks.share)
    assert set(shares.tolist()) == {0.0, 1.0}

    programs = ModulePrograms(module)
    actions = [Action.UPDATE_1 if share else Action.SKIP for share in shares]
    arm = Arm("gate", programs, Schedule(tuple(actions)), "score_first", 0)
    group = Group([stream], unembedding)
    steps = run_streams([arm], group)["gate"]
    # Nothing is learned from the last chunk in the loop.
    assert [step.action for step in steps] == [*actions[:-1], Action.SKIP]
    np.testing.assert_allclose(played.chunks.loss, [step.loss for step in steps], rtol=1e-5, atol=1e-5)
    rows = np.stack([step.features for step in steps])
    np.testing.assert_allclose(played.chunks.features, rows, rtol=2e-4, atol=2e-4)

    fast = jax.tree.map(lambda leaf: leaf[None], module.reset())
    for t, action in enumerate(actions):
        if action.steps:
            page = group.page(t)
            chunk, readout = page.chunk(programs), page.readout(programs)
            fast = programs.adapt[action](programs.slow, fast, chunk, readout).value.fast
    assert tree_close(jax.tree.map(lambda leaf: leaf[0], fast), played.fast)
    assert not tree_close(module.reset(), played.fast)


def test_a_soft_gate_in_the_loop_is_the_one_that_was_trained(tiny, unembedding, awake_modules):
    module, stream, gate = awake_modules["ttt"], tiny[1], fresh_gate()
    played, _ = player(module, "soft")(gate, gate_stream(stream, SIZE), unembedding)
    arm = Arm("gate", ModulePrograms(module), SoftGate(gate, NORMALISER), "score_first", 0)
    steps = run_streams([arm], Group([stream], unembedding))["gate"]
    np.testing.assert_allclose(played.chunks.share, [step.gate_score for step in steps], rtol=1e-4)
    np.testing.assert_allclose(played.chunks.loss, [step.loss for step in steps], rtol=1e-5)
    # Neither all of an update nor nothing: the loss depends on what is kept.
    whole = run_streams(
        [Arm("all", arm.programs, Schedule((Action.UPDATE_1,)), "score_first", 0)],
        Group([stream], unembedding),
    )["all"]
    assert abs(steps[-1].loss - whole[-1].loss) > 1e-3


def test_the_gradient_reaches_every_earlier_decision(tiny, unembedding, awake_modules):
    """A gate that ignores its inputs has one number, whose slope through all updates a difference quotient has too."""
    plays, given = player(awake_modules["ttt"], "soft"), gate_stream(tiny[1], SIZE)

    def constant(bias: float) -> Gate:
        gate = fresh_gate()
        gate.head.kernel[...] = jnp.zeros_like(gate.head.kernel[...])
        gate.head.bias[...] = jnp.asarray([0.0, bias])
        return gate

    played, slopes = plays(constant(0.3), given, unembedding)
    step = 0.1
    above, below = (plays(constant(0.3 + s), given, unembedding)[0] for s in (step, -step))
    np.testing.assert_allclose(
        slopes["head"]["bias"][...][1], (above.loss - below.loss) / (2 * step), rtol=0.02
    )
    share = 1 / (1 + np.exp(-0.3))
    np.testing.assert_allclose(played.chunks.share, share, rtol=1e-5)
    # It is not that of the cost alone.
    assert abs(float(slopes["head"]["bias"][...][1]) / (0.1 * share * (1 - share)) - 1) > 0.1


def test_a_memory_learns_what_a_skipped_update_would_have_been_worth(tiny, unembedding, awake_modules):
    """Whole numbers have no gradient; the stream alone says that there is something to gain."""
    plays, given = player(awake_modules["memory"], "hard"), gate_stream(tiny[1], SIZE)
    draws = [plays(fresh_gate(), given, unembedding, seed) for seed in range(40)]
    slopes = next(slopes for played, slopes in draws if not np.asarray(played.chunks.share).any())
    assert float(jnp.abs(slopes["head"]["bias"][...]).max()) > 1e-4


def test_chunks_that_do_not_exist_change_nothing(tiny, unembedding, awake_modules):
    plays = player(awake_modules["ttt"], "soft")
    exact, exact_slopes = plays(fresh_gate(), gate_stream(tiny[0], len(tiny[0].hidden)), unembedding)
    padded, padded_slopes = plays(fresh_gate(), gate_stream(tiny[0], SIZE), unembedding)
    assert not np.asarray(padded.chunks.features)[-1].any()
    assert tree_close(padded.fast, exact.fast)
    assert tree_close(padded_slopes, exact_slopes)
    for part in ("loss", "ce", "cost", "update_share"):
        assert float(getattr(padded, part)) == pytest.approx(float(getattr(exact, part)), rel=1e-5)


@pytest.mark.parametrize("name", ["lora", "memory"])
def test_an_update_is_kept_in_full_in_part_or_not_at_all(name, tiny, unembedding, awake_modules):
    module = awake_modules[name]
    chunk = jax.tree.map(lambda field: field[0], gate_stream(tiny[0], SIZE).chunks)
    before = module.reset()
    after = module.adapt(before, chunk, Readout(unembedding), 1).fast
    for share, expected in ((0.0, before), (1.0, after)):
        kept = module.blended(before, after, jnp.asarray(share))
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), kept, expected)))
    quarter = module.blended(before, after, jnp.asarray(0.25))
    for b, a, q in zip(*map(jax.tree.leaves, (before, after, quarter)), strict=True):
        real = jnp.issubdtype(b.dtype, jnp.floating)
        np.testing.assert_allclose(q, b + 0.25 * (a - b) if real else a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop_after", [1, 4])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(
    stop_after, trained, tiny, unembedding, awake_modules, tmp_path
):
    class Killed(Exception):
        pass

    def kill(step: int, total: int, loss: float) -> None:
        if step == stop_after + 1:
            raise Killed

    with pytest.raises(Killed):
        train(awake_modules["lora"], tiny, unembedding, tmp_path, progress=kill)
    seen: list[int] = []
    gate, log = train(
        awake_modules["lora"], tiny, unembedding, tmp_path, progress=lambda step, *_: seen.append(step)
    )
    # From the newest checkpoint, not from the start.
    assert seen[0] == stop_after // 2 * 2 + 1
    assert bytes_of(gate) == bytes_of(trained["lora"][0])
    assert log == trained["lora"][1]


@pytest.mark.parametrize("streams", [1, 3])
def test_frozen_logits_that_are_kept_change_nothing(
    streams, trained, tiny, unembedding, awake_modules, tmp_path
):
    room = 4 * len(unembedding) * sum(stream.targets.size for stream in tiny[:streams])
    with Checkpoints(tmp_path, "gate", {}) as checkpoints:
        _, log = train_gate(
            awake_modules["lora"],
            tiny,
            Readout(unembedding),
            NORMALISER,
            CONFIG,
            "hard",
            0,
            checkpoints,
            logits_bytes=room,
        )
    for line, expected in zip(log, trained["lora"][1], strict=True):
        assert line == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_seeds_are_independent(trained, tiny, unembedding, awake_modules, tmp_path):
    other, _ = train(awake_modules["lora"], tiny, unembedding, tmp_path / "1", seed=1)
    again, _ = train(awake_modules["lora"], tiny, unembedding, tmp_path / "0", seed=0)
    assert bytes_of(other) != bytes_of(trained["lora"][0])
    assert bytes_of(again) == bytes_of(trained["lora"][0])


@pytest.mark.parametrize(
    "bad",
    [{"epochs": 0}, {"temperature_end": 0.0}, {"warmup_share": 1.5}, {"cost_weight": -1.0}],
)
def test_a_bad_setting_is_named(bad):
    with pytest.raises(ConfigError, match=rf"^{next(iter(bad))} must be "):
        GateConfig(**bad)


class Greedy:
    """The gate's more likely action; its budget is what it spends."""

    costs, budget = tuple(action.nominal_cost for action in Action), None

    def __init__(self, gate: Gate, normaliser: Normaliser) -> None:
        self.params = SoftGate(gate, normaliser).params

    def init(self) -> Any:
        return ()

    @staticmethod
    def decide(params, state, observation, key) -> Decision:
        gate = nnx.merge(params.graph, params.weights)
        logits = gate_logits(gate, params.normaliser, observation.features)
        return without_rank(state, jnp.argmax(logits), jax.nn.softmax(logits)[1])


def planted(kind: str, folder: Any, **effects: float) -> tuple[np.ndarray, np.ndarray, list]:
    """What a gate trained on planted streams decides on others: probabilities, shares that are kept, and the streams."""
    training = [planted_stream(f"p{i}", i, **effects) for i in range(24)]
    others = [planted_stream(f"q{i}", 100 + i, **effects) for i in range(8)]
    normaliser, module = noise_normaliser(training), PlantedWeights()
    config = GateConfig(epochs=10, checkpoint_every_steps=1000)
    unembedding = jnp.zeros((5, 2))
    with Checkpoints(folder, kind, {}) as checkpoints:
        gate, _ = train_gate(module, training, Readout(unembedding), normaliser, config, kind, 0, checkpoints)
    policy = Greedy(gate, normaliser) if kind == "hard" else SoftGate(gate, normaliser)
    arm = Arm(kind, ModulePrograms(module), policy, "score_first", 0)
    steps = run_streams([arm], Group(others, unembedding))[kind]
    score = np.array([step.gate_score for step in steps]).reshape(len(others), -1)
    kept = score if kind == "soft" else np.array([step.steps for step in steps]).reshape(score.shape)
    return score, kept, others


@pytest.mark.parametrize("kind", [pytest.param("hard", marks=pytest.mark.slow), "soft"])
def test_a_gate_finds_the_feature_that_tells_which_updates_pay(kind, tmp_path):
    """Within 5 % of the best that as many updates can take off the loss, on streams that it was not trained on."""
    _, kept, streams = planted(kind, tmp_path)
    gained = sum(float(worth(stream) @ row) for stream, row in zip(streams, kept, strict=True))
    best = sum(best_gain(stream, float(row.sum())) for stream, row in zip(streams, kept, strict=True))
    everything = sum(float(worth(stream).clip(0).sum()) for stream in streams)
    assert gained >= 0.95 * best
    # Nor does it get there by hardly updating.
    assert gained >= 0.9 * everything


@pytest.mark.parametrize("kind", [pytest.param("hard", marks=pytest.mark.slow), "soft"])
def test_a_gate_learns_to_skip_where_no_update_pays(kind, tmp_path):
    score, kept, _ = planted(kind, tmp_path, pays=0.0, costs=0.0)
    assert score.mean() < 0.05
    assert kept.mean() < 0.05
