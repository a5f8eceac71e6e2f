"""The loop keeps its order: nothing is scored by what has seen its label, and no stream touches another."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.actions import Action
from ponderttt.fast_weights.base import Chunk, FastWeights, Readout
from ponderttt.fast_weights.build import build
from ponderttt.files.checkpoints import Checkpoints
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.loop.arm import Arm
from ponderttt.loop.methods import Spending, arm_of, protocol_of
from ponderttt.loop.page import Group
from ponderttt.loop.programs import ModulePrograms
from ponderttt.loop.running import Budget, run_arms
from ponderttt.loop.stream import run_streams
from ponderttt.models.losses import corrected_cross_entropy, frozen_logits
from ponderttt.names import KINDS, METHODS, ORACLE_METHODS, FastWeightsName, MethodName
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.calibration import calibrate
from ponderttt.policies.rules import Fixed
from ponderttt.records.step import Step
from ponderttt.settings.fast_weights import FastWeightsConfig, LoRAConfig, TTTConfig
from ponderttt.settings.rules import RulesConfig
from ponderttt.settings.training import TrainingConfig
from ponderttt.training.slow_weights import train_slow_weights
from tiny_policies import learned_policies
from tiny_streams import CHUNK, VOCABULARY, WIDTH, fresh, make_stream, random_tokens, suffix_block

#: Oracles look ahead, so that their choices depend on what comes; see test_oracles.py.
LOOP_METHODS = [method for method in METHODS if method not in ORACLE_METHODS]
#: Signals of made-up training streams; tiny ones lie among them.
CALIBRATION = calibrate(
    {
        "entropy": np.linspace(0.3, 0.7, 21),
        "loss": np.linspace(3.0, 6.0, 21),
        "reconstruction": np.linspace(-1.0, 40.0, 21),
    }
)
CHANGED_CHUNK, CHANGED_TOKEN = 1, 30
LEARNED = learned_policies()


@pytest.fixture(scope="module")
def programs(awake_modules):
    """Compiled once for the whole file."""
    return {kind: ModulePrograms(module) for kind, module in awake_modules.items()}


def methods_of(kind: str) -> list[str]:
    return [method for method in LOOP_METHODS if FastWeightsName(kind).runs(MethodName(method))]


def spending(budget: float) -> Spending:
    return Spending(budget, NOMINAL_COSTS, RulesConfig(), CALIBRATION, LEARNED)


def group_of(streams, unembedding) -> Group:
    donors = [*streams[1:], streams[0]] if len(streams) > 1 else [make_stream("donor", random_tokens(99, 3))]
    return Group(streams, unembedding, suffix_block(), donors)


def run(
    programs, kind: str, methods: Sequence[str], streams, unembedding, seed: int = 0, budget: float = 3.34
) -> dict[str, list[Step]]:
    """Rules spend 10 of these budgets on three chunks: UPDATE_1 and UPDATE_2 in either order, then SKIP."""
    arms = [arm_of(MethodName(m), programs[kind], spending(budget), seed) for m in methods]
    return run_streams(arms, group_of(streams, unembedding))


def run_all(module: FastWeights, streams, unembedding, methods: Sequence[str], **options):
    """:func:`run_arms` with what every tiny module needs."""
    given = {
        "budget": Budget(3.0),
        "seed": 0,
        "suffix": suffix_block(),
        "calibration": CALIBRATION,
        "learned": LEARNED,
    }
    return run_arms(module, streams, unembedding, [MethodName(m) for m in methods], **{**given, **options})


def changed(stream: FrozenChunks, tokens: np.ndarray) -> tuple[FrozenChunks, int]:
    """The stream with one token changed, and the position in its chunk of the first loss that may differ."""
    position = CHANGED_CHUNK * CHUNK + CHANGED_TOKEN
    other = tokens.copy()
    other[position] = (other[position] + 1) % VOCABULARY
    # The token is the target of the position before it.
    return make_stream(stream.stream_id, other), CHANGED_TOKEN - 1


def first_difference(before: list[Step], after: list[Step]) -> tuple[int, int] | None:
    """(chunk, position) of the first token loss that differs in any bit."""
    for a, b in zip(before, after, strict=True):
        differs = np.flatnonzero(a.nll != b.nll)
        if len(differs):
            return a.chunk_index, int(differs[0])
    return None


@pytest.fixture(scope="module")
def perturbed(programs, unembedding):
    """For each kind of fast weights: steps of every method before and after one token of one stream changed."""
    tokens = random_tokens(1, 3)
    first, second = make_stream("one", tokens), make_stream("two", random_tokens(3, 3))
    other, position = changed(first, tokens)
    return {
        kind: (
            run(programs, kind, methods_of(kind), [first, second], unembedding),
            run(programs, kind, methods_of(kind), [other, second], unembedding),
            position,
        )
        for kind in KINDS
    }


def steps_of(runs: dict[str, list[Step]], method: str, stream_id: str) -> list[Step]:
    return [step for step in runs[method] if step.stream_id == stream_id]


@pytest.mark.parametrize(
    ("kind", "method"),
    [(k, m) for k in KINDS for m in methods_of(k) if protocol_of(MethodName(m)) != "transductive"],
)
def test_no_loss_before_a_changed_token_moves_by_a_bit(perturbed, kind, method):
    before, after, position = perturbed[kind]
    difference = first_difference(steps_of(before, method, "one"), steps_of(after, method, "one"))
    assert difference == (CHANGED_CHUNK, position)


@pytest.mark.parametrize("kind", KINDS)
def test_the_leak_test_catches_the_planted_leak(perturbed, kind):
    before, after, position = perturbed[kind]
    difference = first_difference(
        steps_of(before, "transductive", "one"), steps_of(after, "transductive", "one")
    )
    assert difference is not None
    assert difference < (CHANGED_CHUNK, position)


@pytest.mark.parametrize(
    ("kind", "method"), [(k, m) for k in KINDS for m in methods_of(k) if m != "other_stream"]
)
def test_other_streams_of_the_group_do_not_move_by_a_bit(perturbed, kind, method):
    before, after, _ = perturbed[kind]
    assert first_difference(steps_of(before, method, "two"), steps_of(after, method, "two")) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_learning_from_a_chunk_reaches_the_next_one(perturbed, kind, steps):
    """Fast weights carry over from chunk to chunk: a changed chunk changes the losses of the chunk after it."""
    before, after, _ = perturbed[kind]
    a, b = (steps_of(ran, f"update_{steps}", "one") for ran in (before, after))
    assert a[CHANGED_CHUNK].steps == steps
    assert not np.array_equal(a[CHANGED_CHUNK + 1].nll, b[CHANGED_CHUNK + 1].nll)


@pytest.mark.parametrize("kind", KINDS)
def test_a_skipped_chunk_reaches_no_other(perturbed, kind):
    before, after, _ = perturbed[kind]
    a, b = (steps_of(ran, "skip", "one") for ran in (before, after))
    assert not np.array_equal(a[CHANGED_CHUNK].nll, b[CHANGED_CHUNK].nll)
    assert np.array_equal(a[CHANGED_CHUNK + 1].nll, b[CHANGED_CHUNK + 1].nll)


def repeated(seed: int) -> FrozenChunks:
    """A chunk of noise, read four times."""
    once = random_tokens(seed, 1)[:-1]
    return make_stream(f"again {seed}", np.concatenate([np.tile(once, 4), once[:1]]))


@pytest.fixture(scope="module")
def trained_ttt(unembedding, tmp_path_factory):
    """A TTT layer that was trained on repeated streams: untrained, its read is zero and would promise nothing."""
    config = TTTConfig(heads=1, head_dim=32, base_inner_rate=4.0)
    module = build("ttt", WIDTH, FastWeightsConfig(ttt=config), seed=0)
    settings = TrainingConfig(
        epochs=8, learning_rate=1e-2, window_chunks=4, outer_tokens=None, checkpoint_every_steps=1000
    )
    streams = [repeated(100 + i) for i in range(24)]
    with Checkpoints(tmp_path_factory.mktemp("ttt"), "ttt", {}) as checkpoints:
        return train_slow_weights(
            module, streams, streams[:1], Readout(unembedding), settings, 0, checkpoints
        )[0]


METHODS_THAT_LEARN = ["update_1", "update_4", "in_chunk"]


def late_means(steps: dict[str, list[Step]]) -> dict[str, float]:
    """Mean loss of each method after the second chunk."""
    return {m: float(np.mean([s.loss for s in rows if s.chunk_index >= 2])) for m, rows in steps.items()}


@pytest.mark.parametrize("method", METHODS_THAT_LEARN)
def test_a_repeated_stream_pays_with_trained_ttt(method, trained_ttt, unembedding):
    """On streams that its training never saw."""
    unseen = [repeated(200 + i) for i in range(3)]
    late = late_means(run_all(trained_ttt, unseen, unembedding, ["skip", method]))
    assert late[method] < late["skip"] - 0.02


def test_a_repeated_stream_pays_with_lora_and_more_updates_pay_more(unembedding):
    steps = run_all(fresh("lora"), [repeated(4)], unembedding, ["skip", "update_1", "update_4"])
    late = late_means(steps)
    assert late["update_4"] < late["update_1"] < late["skip"] - 0.03


def noise_means(module: FastWeights, unembedding, methods: list[str]) -> dict[str, float]:
    streams = [make_stream(str(i), random_tokens(10 + i, 3)) for i in range(3)]
    steps = run_all(module, streams, unembedding, methods)
    return {method: float(np.mean([s.loss for s in rows])) for method, rows in steps.items()}


def test_random_tokens_give_no_gain_with_trained_ttt(trained_ttt, unembedding):
    """The very module that gains 0.04 nats and more where there is something to learn."""
    means = noise_means(trained_ttt, unembedding, ["skip", "random", *METHODS_THAT_LEARN])
    assert min(means.values()) >= means["skip"] - 0.01


@pytest.fixture(scope="module")
def lora_on_noise(unembedding):
    """An eager LoRA over a model that predicts almost uniformly: an overconfident one gains by becoming less sure."""
    eager = FastWeightsConfig(lora=LoRAConfig(rank=4, inner_rate=0.3))
    methods = ["skip", "update_1", "update_4", "random", "transductive"]
    return noise_means(build("lora", WIDTH, eager, seed=0), 0.1 * unembedding, methods)


@pytest.mark.parametrize("method", ["update_1", "update_4", "random"])
def test_random_tokens_give_no_gain_with_lora(method, lora_on_noise):
    assert lora_on_noise[method] >= lora_on_noise["skip"] - 1e-3


def test_the_planted_leak_gains_on_random_tokens(lora_on_noise):
    """The leak test can fail: the leaking order "learns" unpredictable noise."""
    assert lora_on_noise["transductive"] < lora_on_noise["skip"] - 0.05


@pytest.mark.parametrize("protocol", ["score_first", "in_chunk", "transductive"])
def test_a_policy_is_shown_only_what_it_may_know(protocol, awake_modules, streams, unembedding):
    """Before a chunk is read nothing of it is shown, its frozen losses neither."""
    seen = []

    class Spy(Fixed):
        @staticmethod
        def decide(params, state, observation, key):
            jax.debug.callback(lambda *values: seen.append([float(v) for v in values]), *observation[2:5])
            return Fixed.decide(params, state, observation, key)

    arm = Arm("spy", ModulePrograms(awake_modules["ttt"]), Spy(Action.UPDATE_1), protocol, 0)
    steps = run_streams([arm], Group(streams[:1], unembedding))["spy"]
    jax.effects_barrier()
    assert len(seen) == len(steps)
    if protocol == "score_first":
        assert [row[0] for row in sorted(seen)] == pytest.approx(sorted(s.loss for s in steps), rel=1e-6)
    else:
        assert np.isnan(seen).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_control_other_stream_learns_from_the_other_stream_alone(perturbed, kind):
    """Stream two learns from one: it moves where one was changed, from the chunk after that on."""
    before, after, _ = perturbed[kind]
    rows = [steps_of(runs, "other_stream", "two") for runs in (before, after)]
    difference = first_difference(*rows)
    assert difference is not None
    assert difference[0] == CHANGED_CHUNK + 1


@pytest.mark.parametrize("kind", ["ttt", "lora"])
def test_skip_of_an_untrained_adapter_is_the_backbone_bit_for_bit(kind, streams, unembedding):
    steps = run_all(fresh(kind), streams[:1], unembedding, ["skip"])["skip"]
    plain = jax.jit(
        lambda hidden, targets: corrected_cross_entropy(
            frozen_logits(hidden, unembedding), jnp.zeros((CHUNK, 1)), jnp.zeros((VOCABULARY, 1)), targets
        )
    )
    for step in steps:
        expected = plain(streams[0].hidden[step.chunk_index], streams[0].targets[step.chunk_index])
        assert np.array_equal(step.nll, np.where(streams[0].mask[step.chunk_index], expected, 0.0))


def test_skip_of_an_empty_memory_is_the_frozen_loss_bit_for_bit(streams, unembedding):
    steps = run_all(fresh("memory"), streams[:2], unembedding, ["skip"])["skip"]
    for step in steps:
        stream = next(s for s in streams if s.stream_id == step.stream_id)
        assert np.array_equal(step.nll, stream.nll_frozen[step.chunk_index])


def test_an_action_not_taken_compiles_and_costs_nothing(awake_modules, streams, unembedding):
    own = ModulePrograms(awake_modules["ttt"])
    skipped = run_streams(
        [arm_of(MethodName("skip"), own, spending(3.0), 0)], Group(streams[:1], unembedding)
    )["skip"]
    assert not any(program._flops for program in own.adapt.values())
    updated = run_streams(
        [arm_of(MethodName("update_1"), own, spending(3.0), 0)], Group(streams[:1], unembedding)
    )["update_1"]
    assert all(u.flops > s.flops for u, s in zip(updated[:-1], skipped[:-1], strict=True))
    assert {s.steps for s in skipped} == {0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "count"), [("skip", 0), ("update_1", 1), ("update_2", 2), ("update_4", 4)]
)
def test_update_k_makes_exactly_k_updates(perturbed, kind, method, count):
    """Before the last chunk, after which an update could help nothing."""
    before, _, _ = perturbed[kind]
    for step in before[method]:
        last = step.chunk_index == 2
        assert step.steps == (0 if last else count)
        assert step.action is (Action.SKIP if last else Action[method.upper()])


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_updates_leaves_different_fast_weights(perturbed, kind):
    before, _, _ = perturbed[kind]
    second = {m: steps_of(before, m, "one")[1].nll for m in ("skip", "update_1", "update_2", "update_4")}
    names = list(second)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not np.array_equal(second[a], second[b]), (a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_bucketed_execution_equals_a_masked_loop(kind, awake_modules, programs, streams, unembedding):
    """The random method mixes actions in a group; the reference runs every branch and selects."""
    module = awake_modules[kind]
    group = [streams[0], streams[2]]
    steps = run(programs, kind, ["random"], group, unembedding, seed=3)["random"]
    actions = {(s.stream_id, s.chunk_index): s.action for s in steps}
    assert len({actions[s.stream_id, t] for s in group for t in range(3)}) > 1

    @jax.jit
    def masked(fast, chunk, readout, action):
        branches = [fast, *(module.adapt(fast, chunk, readout, a.steps).fast for a in Action if a.steps)]
        chosen = jax.tree.map(lambda *leaves: jnp.stack(leaves)[action], *branches)
        return module.score(fast, chunk, readout), chosen

    for stream in group:
        fast = module.reset()
        for t in range(3):
            chunk = Chunk(*(jnp.asarray(getattr(stream, name)[t]) for name in Chunk._fields))
            readout = Readout(unembedding, frozen_logits(chunk.hidden, unembedding), suffix=suffix_block())
            nll, fast = masked(fast, chunk, readout, int(actions[stream.stream_id, t]))
            step = next(s for s in steps if (s.stream_id, s.chunk_index) == (stream.stream_id, t))
            np.testing.assert_allclose(step.nll, nll, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_scores_the_same_alone_and_in_a_group(kind, programs, streams, unembedding):
    together = run(programs, kind, ["update_1"], streams, unembedding)["update_1"]
    for stream in streams:
        alone = run(programs, kind, ["update_1"], [stream], unembedding)["update_1"]
        mine = [s for s in together if s.stream_id == stream.stream_id]
        np.testing.assert_allclose([s.loss for s in mine], [s.loss for s in alone], rtol=1e-5)


def test_padding_is_never_scored_nor_learned_from(programs, streams, unembedding):
    """Other numbers after the real tokens of a half-empty last chunk change nothing."""
    stream = streams[1]
    hidden, entropy = stream.hidden.copy(), stream.entropy.copy()
    hidden[-1, 20:], entropy[-1, 20:] = 7.0, 99.0
    dirty = stream._replace(hidden=hidden, entropy=entropy)
    # The leaking protocol learns from the last chunk too.
    methods = ["update_1", "transductive"]
    for kind in KINDS:
        clean, other = (run(programs, kind, methods, [own], unembedding) for own in (stream, dirty))
        for method in methods:
            last = clean[method][-1]
            assert last.n_tokens == 20
            assert last.loss == other[method][-1].loss
            assert np.all(last.nll[20:] == 0)


def test_streams_finished_before_an_interruption_are_not_scored_again(tmp_path, streams, unembedding):
    module = fresh("lora")
    whole = run_all(module, streams, unembedding, ["update_1"])["update_1"]
    with Checkpoints(tmp_path, "arms", {"a": 1}) as checkpoints:

        def stop(done: int, total: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_all(
                module,
                streams,
                unembedding,
                ["update_1"],
                checkpoints=checkpoints,
                progress=stop,
            )
        # Streams that are kept are not looked at: nonsense in their place does not matter.
        nonsense = [s._replace(hidden=np.full_like(s.hidden, np.nan)) for s in streams[:2]]
        resumed = run_all(
            module, [*nonsense, streams[2]], unembedding, ["update_1"], checkpoints=checkpoints
        )["update_1"]
    assert [s.loss for s in resumed] == [s.loss for s in whole]


def test_in_chunk_reading_is_refused_where_no_causal_read_exists(awake_modules):
    with pytest.raises(ValueError, match="no causal in-chunk read"):
        arm_of(MethodName("in_chunk"), ModulePrograms(awake_modules["lora"]), spending(3.0), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shared_projection_gives_the_loss_of_the_module_s_own_read(
    kind, awake_modules, streams, unembedding
):
    """After an update, so that no kind still predicts what the frozen model does."""
    module = awake_modules[kind]
    first, second = (
        Chunk(*(jnp.asarray(getattr(streams[0], name)[t]) for name in Chunk._fields)) for t in (0, 1)
    )

    def readout(chunk: Chunk) -> Readout:
        return Readout(unembedding, frozen_logits(chunk.hidden, unembedding), suffix=suffix_block())

    # The streams' entropies are random; the memory mixes by those of the predictions.
    frozen = jax.nn.log_softmax(frozen_logits(second.hidden, unembedding))
    second = second._replace(entropy=-jnp.sum(jnp.exp(frozen) * frozen, axis=-1))
    fast = jax.jit(lambda: module.adapt(module.reset(), first, readout(first), 1).fast)()
    direct = -module.next_token(fast, second, readout(second))[jnp.arange(CHUNK), second.targets]
    np.testing.assert_allclose(module.score(fast, second, readout(second)), direct, rtol=1e-5, atol=1e-5)
    assert np.abs(direct - second.nll_frozen).max() > 1e-3
