"""A budget over a corpus: one price on every stream, and never more than the budget in all."""

from __future__ import annotations

import numpy as np
import pytest

from ponderttt.files.checkpoints import Checkpoints
from ponderttt.loop.corpus_budget import chunks_per_decision
from ponderttt.loop.running import Budget, run_arms
from ponderttt.names import MethodName
from ponderttt.policies.budget import NOMINAL_COSTS, matched_probabilities
from ponderttt.policies.calibration import calibrate
from tiny_policies import learned_policies
from tiny_streams import fresh, make_stream, random_tokens

STREAMS = [make_stream(str(i), random_tokens(i, 2 + i % 4)) for i in range(8)]
CHUNKS = sum(len(stream.hidden) for stream in STREAMS)
METHODS = ["random", "entropy", "regression", "ppo"]


def run(unembedding, low: float, high: float, methods=METHODS, **options):
    """Signals of made-up training streams between ``low`` and ``high``; those of the tiny streams are about 0.5."""
    calibration = calibrate(
        {name: np.linspace(low, high, 50) for name in ("entropy", "loss", "reconstruction")}
    )
    return run_arms(
        fresh("memory"),
        STREAMS,
        unembedding,
        [MethodName(method) for method in methods],
        budget=Budget(3.0, over="corpus"),
        seed=0,
        calibration=calibration,
        learned=learned_policies(),
        **options,
    )


def cost(steps) -> float:
    return sum(step.action.nominal_cost for step in steps)


@pytest.fixture(scope="module")
def steps(unembedding):
    return run(unembedding, 0.45, 0.55)


@pytest.mark.parametrize("method", METHODS)
def test_streams_share_the_budget_and_do_not_exceed_it(method, steps):
    spent = cost(steps[method])
    assert spent <= 3.0 * CHUNKS
    # They do use it, and not each stream its own part.
    assert spent > 2.0 * CHUNKS
    means = [
        np.mean([s.action.nominal_cost for s in steps[method] if s.stream_id == x.stream_id]) for x in STREAMS
    ]
    assert np.std(means) > 0.2


def test_the_price_is_the_same_on_every_stream_and_makes_up_for_last_chunks(steps):
    """While all actions can be paid, cuts are those of the mean cost that the deciding chunks have."""
    deciding = 1 + 2.0 * chunks_per_decision(STREAMS)
    expected = np.cumsum(matched_probabilities(NOMINAL_COSTS, deciding))[:3]
    seen = [step for step in steps["entropy"][: CHUNKS // 2] if step.gate_cuts != (1.0, 1.0, 1.0)]
    assert len(seen) > 5
    np.testing.assert_allclose(
        [step.gate_cuts for step in seen], np.tile(expected, (len(seen), 1)), atol=1e-6
    )


def test_signals_above_all_training_streams_end_at_the_budget(unembedding):
    """Every chunk ranks highest, so UPDATE_4 follows until nothing is left, and then the cheapest actions."""
    high = run(unembedding, -2.0, -1.0, ["entropy"])["entropy"]
    assert 3.0 * CHUNKS - 2 < cost(high) <= 3.0 * CHUNKS
    assert high[0].action.name == "UPDATE_4"
    assert high[-2].action.name == "SKIP"


def test_signals_below_all_training_streams_spend_little(unembedding):
    assert cost(run(unembedding, 5.0, 6.0, ["entropy"])["entropy"]) == CHUNKS


def test_an_interrupted_run_goes_on_with_what_is_left(unembedding, tmp_path):
    whole = run(unembedding, 0.45, 0.55, ["random"])["random"]

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with Checkpoints(tmp_path, "arms", {"a": 1}) as checkpoints:
        with pytest.raises(KeyboardInterrupt):
            run(unembedding, 0.45, 0.55, ["random"], checkpoints=checkpoints, progress=stop)
        resumed = run(unembedding, 0.45, 0.55, ["random"], checkpoints=checkpoints)["random"]
    assert [step.action for step in resumed] == [step.action for step in whole]


def test_oracles_and_groups_are_refused(unembedding):
    for methods, options in ((["greedy_oracle"], {}), (["random"], {"streams_per_group": 2})):
        with pytest.raises(ValueError, match="streams one after the other, and no oracle"):
            run(unembedding, 0.45, 0.55, methods, **options)
