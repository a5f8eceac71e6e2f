"""The cost of a PPO iteration beyond scoring and adapting: rollouts of 64 chunks × 8 streams on cached states, and the update.

    python speed/ppo.py [--kind lora] [--iterations 3] [--chunks 16]

Streams of random states in the shapes of SmolLM2-135M.  Each iteration has its own world with an empty cache: the most
expensive case for the adapter, and the one that counts.  Then one more iteration runs in a world with all results cached.
"""

from __future__ import annotations

import argparse
import tempfile

import jax
import numpy as np
from setting import VOCABULARY, WIDTH, random_stream

from ponderttt.fast_weights.build import build
from ponderttt.features.normalise import Normaliser
from ponderttt.features.table import BASE, FEATURES
from ponderttt.files.checkpoints import Checkpoints
from ponderttt.loop.programs import ModulePrograms
from ponderttt.policies.budget import NOMINAL_COSTS
from ponderttt.settings.fast_weights import FastWeightsConfig
from ponderttt.settings.ppo import PPOConfig
from ponderttt.training.ppo.train import train_ppo
from ponderttt.training.world import World

TARGET = 0.10


def main() -> None:
    """Print the share; exit with 1 if it is above the target."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", choices=["ttt", "lora", "memory"], default="lora")
    parser.add_argument("--iterations", type=int, default=3, help="besides one that compiles")
    parser.add_argument("--chunks", type=int, default=16, help="of each stream")
    options = parser.parse_args()
    programs = ModulePrograms(build(options.kind, WIDTH, FastWeightsConfig(), seed=0))
    unembedding = 0.02 * jax.random.normal(jax.random.key(0), (VOCABULARY, WIDTH))
    streams = [random_stream(number, options.chunks) for number in range(4)]
    normaliser = Normaliser(np.zeros(len(FEATURES)), np.ones(len(FEATURES)))

    def iterate(world: World, seed: int, count: int = 1) -> dict[str, float]:
        config = PPOConfig(iterations=count, warm_start=None, checkpoint_every=count)
        with (
            tempfile.TemporaryDirectory() as folder,
            Checkpoints(folder, "benchmark", {}) as checkpoints,
        ):
            *_, log = train_ppo(world, normaliser, BASE, config, 3.5, NOMINAL_COSTS, seed, checkpoints)
        return log[-1]

    iterate(World(programs, streams, unembedding), 0)
    shares = []
    print(f"{options.kind}: 64 chunks × 8 streams, seconds of an iteration")
    for seed in range(options.iterations):
        line = iterate(World(programs, streams, unembedding), seed)
        other = line["seconds"] - line["module_seconds"]
        shares.append(other / line["seconds"])
        print(
            f"  {line['seconds']:7.2f} in all, {line['module_seconds']:7.2f} scoring and adapting, "
            f"{line['update_seconds']:5.2f} update; everything else {other:5.2f} = {shares[-1]:.1%}"
        )
    known = World(programs, streams, unembedding)
    for _ in range(2):
        line = iterate(known, 0)
    print(f"  {line['seconds']:7.2f} where every answer is known")
    raise SystemExit(float(np.median(shares)) > TARGET)


if __name__ == "__main__":
    main()
