"""The cost of an action that is not taken: a policy's wall-clock time against (1−r)·SKIP + r·UPDATE_1, and against every branch.

    python speed/buckets.py [--streams 1] [--chunks 8] [--rounds 3] [--rate 0.4] [--kind lora]

Streams of random states in the shapes of SmolLM2-135M (512 tokens, width 576, vocabulary 49,152).  The policy
tosses a coin for each stream and chunk; the loop gathers the streams of an action, runs its program and
scatters back.  The naive way, ``vmap`` of a ``switch``, runs each branch for every stream and selects.  With several
streams in a group, those of an action are copied out of the group's logits first, which a CPU feels; the workflow runs one
stream at a time.  All variants are timed in turn, and medians over rounds are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from setting import VOCABULARY, WIDTH, random_stream

from ponderttt.actions import Action
from ponderttt.fast_weights.build import build
from ponderttt.loop.methods import Spending, arm_of
from ponderttt.loop.page import Group
from ponderttt.loop.programs import READOUT_AXES, ModulePrograms
from ponderttt.loop.stream import run_streams
from ponderttt.names import MethodName
from ponderttt.policies.base import Decision, Observation
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.policies.rules import Fixed
from ponderttt.settings.fast_weights import FastWeightsConfig
from ponderttt.settings.rules import RulesConfig

TARGET = 0.10


@dataclass(frozen=True)
class Coin:
    """Policy that takes UPDATE_1 with a fixed probability, independently for each stream and chunk."""

    rate: float
    budget: float | None = None
    costs: tuple[float, ...] = NOMINAL_COSTS

    @property
    def params(self) -> Any:
        """The probability, as parameters."""
        return jnp.asarray(self.rate)

    def init(self) -> Any:
        """Return the empty state."""
        return ()

    @staticmethod
    def decide(params: Any, state: Any, observation: Observation, key: Key[Array, ""]) -> Decision:
        """See :class:`ponderttt.policies.base.Policy`."""
        nothing = jnp.asarray(jnp.nan)
        action = jnp.where(jax.random.uniform(key) < params, int(Action.UPDATE_1), int(Action.SKIP))
        return Decision(state, action, nothing, nothing, jnp.full(3, jnp.nan))


def wall_clock(run: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def main() -> None:
    """Print the comparison; exit with 1 if the policy costs more than its target."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kind", choices=["ttt", "lora"], default="lora")
    options = parser.parse_args()
    unembedding = 0.02 * jax.random.normal(jax.random.key(0), (VOCABULARY, WIDTH))
    streams = [random_stream(number, options.chunks) for number in range(options.streams)]
    module = build(options.kind, WIDTH, FastWeightsConfig(), seed=0)
    programs = ModulePrograms(module)
    spending = Spending(3.0, NOMINAL_COSTS, RulesConfig())
    arms = {
        name: arm_of(MethodName("update_1"), programs, spending, 0, policy)
        for name, policy in (
            ("SKIP", Fixed(Action.SKIP)),
            ("UPDATE_1", Fixed(Action.UPDATE_1)),
            ("policy", Coin(options.rate)),
        )
    }
    steps = {name: run_streams([arm], Group(streams, unembedding))["update_1"] for name, arm in arms.items()}
    actions = np.array([int(step.action) for step in steps["policy"]]).reshape(
        options.streams, options.chunks
    )
    share = float(np.mean(actions > 0))

    everything = jax.jit(
        jax.vmap(
            lambda fast, chunk, readout, action: jax.lax.switch(
                action,
                [
                    lambda: fast,
                    *(
                        lambda k=a.steps: module.adapt(fast, chunk, readout, k).fast
                        for a in Action
                        if a.steps
                    ),
                ],
            ),
            in_axes=(0, 0, READOUT_AXES, 0),
        )
    )

    def naive() -> None:
        fast = jax.tree.map(lambda leaf: jnp.stack([leaf] * options.streams), module.reset())
        for t in range(options.chunks):
            page = Group(streams, unembedding).page(t)
            chunk, readout = page.chunk(programs), page.readout(programs)
            jax.block_until_ready(programs.score(programs.slow, fast, chunk, readout).value)
            fast = jax.block_until_ready(everything(fast, chunk, readout, jnp.asarray(actions[:, t])))

    variants: dict[str, Callable[[], object]] = {
        name: (lambda arm=arm: run_streams([arm], Group(streams, unembedding))) for name, arm in arms.items()
    } | {"every branch": naive}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    naive()  # the others are compiled by now
    for _ in range(options.rounds):
        for name, run in variants.items():
            seconds[name].append(wall_clock(run))
    median = {name: statistics.median(times) for name, times in seconds.items()}
    expected = (1 - share) * median["SKIP"] + share * median["UPDATE_1"]
    per_chunk = options.streams * options.chunks
    print(f"{options.kind}, {options.streams} streams of {options.chunks} chunks, update rate {share:.2f}")
    for name, value in median.items():
        print(f"{name:<14} {1e3 * value / per_chunk:8.1f} ms per chunk  {value / median['SKIP']:6.3f} × SKIP")
    print(f"policy / ((1−r)·SKIP + r·UPDATE_1) = {median['policy'] / expected:.3f}")
    raise SystemExit(abs(median["policy"] / expected - 1) > TARGET)


if __name__ == "__main__":
    main()
