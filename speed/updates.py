"""The cost of UPDATE_1 on top of SKIP: wall-clock seconds of a chunk, frozen pass, projection and all.

    python speed/updates.py [--rounds 15] [--model smollm2-135m] [--rank 32]

Random weights, one chunk of 512 tokens; SKIP is the frozen pass and scoring, UPDATE_1 adapts as well.  Rounds of all are
taken in turn.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from setting import TOKENS, parser, read

from ponderttt.actions import Action
from ponderttt.fast_weights.base import Chunk
from ponderttt.fast_weights.build import build
from ponderttt.loop.programs import ModulePrograms, project
from ponderttt.settings.fast_weights import FastWeightsConfig, LoRAConfig

#: Largest allowed ratio of UPDATE_1 to SKIP, per kind.
TARGETS = {"ttt": 1.05, "lora": 1.3, "memory": 1.05}


@dataclass(frozen=True)
class Row:
    """Result of one kind: median seconds of SKIP, and the median ratio of UPDATE_1 to SKIP."""

    kind: str
    skip_seconds: float
    ratio: float
    target: float


def main() -> None:
    """Print a table, and write JSON with ``--json``."""
    options = parser(__doc__.splitlines()[0], 15)
    options.add_argument("--rank", type=int, default=32, help="of LoRA")
    given, setting = read(options)
    backbone = setting.backbone()
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(3, backbone.config.vocab_size, (1, TOKENS)), jnp.int32)
    targets = jnp.roll(tokens, -1, 1)
    config = FastWeightsConfig(lora=LoRAConfig(rank=given.rank))
    rows = []
    print(f"{given.model}: {setting.threads} threads, one chunk of {TOKENS} tokens")
    print("fast weights   s of SKIP   UPDATE_1 / SKIP   target")
    for kind, target in TARGETS.items():
        programs = ModulePrograms(build(kind, backbone.config.width, config, 0, backbone.config))
        fast = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], programs.reset(programs.slow).value)

        def chunk_seconds(action: Action, programs: ModulePrograms = programs, fast: object = fast) -> float:
            begin = setting.clock()
            hidden = backbone.hidden(tokens)
            ones = jnp.ones((1, TOKENS))
            chunk = Chunk(hidden, targets, ones > 0, ones, 3 * ones)
            jax.block_until_ready(hidden)
            logits = project(chunk, backbone.unembedding).value if programs.reads == "logits" else None
            readout = programs.readout(backbone.unembedding, logits, None)
            programs.score(programs.slow, fast, chunk, readout)
            if action.steps:
                programs.adapt[action](programs.slow, fast, chunk, readout)
            return setting.clock() - begin

        for action in (Action.SKIP, Action.UPDATE_1):
            chunk_seconds(action)
        pairs = [(chunk_seconds(Action.SKIP), chunk_seconds(Action.UPDATE_1)) for _ in range(setting.rounds)]
        row = Row(
            kind,
            statistics.median(skip for skip, _ in pairs),
            statistics.median(update / skip for skip, update in pairs),
            target,
        )
        rows.append(row)
        print(f"{kind:<12}   {row.skip_seconds:<9.3f}   {row.ratio:<15.3f}   {target}", flush=True)
    setting.write(rows)


if __name__ == "__main__":
    main()
