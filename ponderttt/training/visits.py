"""Chunks of training streams on random paths of a budget, with the gain of an update there.

They give the scale of the features, the percentiles of learned scores, and the gains that a regression learns.  The last
chunk of a stream is left out: nothing is decided there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ponderttt.actions import Action
from ponderttt.policies.budget import BudgetTables, spend_by_rank, stream_units
from ponderttt.training.rollouts import Episode
from ponderttt.training.world import Updates, World


class Visits(NamedTuple):
    """Chunks on random sequences of actions."""

    #: Raw features.
    features: Float[np.ndarray, "M F"]
    #: Gain of UPDATE_1, nats per token summed over later chunks; NaN if not measured.
    gain: Float[np.ndarray, " M"]
    stream: Int[np.ndarray, " M"]


def random_actions(tables: BudgetTables, length: int, rng: np.random.Generator) -> list[Action]:
    """Draw a sequence of actions that costs exactly the budget of a stream."""
    left, actions = stream_units(tables, length), []
    for t in range(length):
        rank = jnp.asarray(rng.random(), jnp.float32)
        spent = spend_by_rank(tables, left, jnp.asarray(length - t - 1), rank)
        actions.append(Action(int(spent.action)))
        left = left - spent.units
    return actions


def visit(
    world: World,
    tables: BudgetTables,
    costs: Sequence[float],
    sequences: int,
    seed: int,
    *,
    with_gains: bool = False,
    shown_budget: float = np.inf,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Visits:
    """Run random sequences of actions over each stream, and measure gains if ``with_gains``.

    Args:
        world: training streams.
        tables: budget tables that the sequences spend by.
        costs: cost of each of the four actions.
        sequences: number of sequences per stream.
        seed: seed of the sequences.
        with_gains: measure the gain of UPDATE_1 at each chunk.
        shown_budget: mean cost per chunk in the features; infinite for a policy trained without a budget.
        progress: called with (streams done, total).
    """
    features, owners = [], []
    gains: list[float] = []
    for stream in range(len(world.streams)):
        rng = np.random.default_rng([seed, stream])
        paths = [random_actions(tables, world.length(stream), rng) for _ in range(sequences)]
        episodes = [Episode(world, stream, shown_budget, costs) for _ in paths]
        # Updates without and with UPDATE_1 on a chunk that was visited; a chunk is open once for all of them.
        pairs: list[tuple[Updates, Updates]] = []
        saved: list[float] = []
        for t in range(world.length(stream)):
            for place, (without, updated) in enumerate(pairs):
                saved[place] += world.read(stream, t, without).loss - world.read(stream, t, updated).loss
            if t + 1 == world.length(stream):
                break
            for episode, path in zip(episodes, paths, strict=True):
                features.append(episode.observe())
                owners.append(stream)
                if with_gains:
                    updated = world.learn(stream, t, episode.updates, Action.UPDATE_1)
                    pairs.append((episode.updates, updated))
                    saved.append(0.0)
                episode.act(path[t])
        gains += saved if with_gains else [np.nan] * (sequences * (world.length(stream) - 1))
        progress(stream + 1, len(world.streams))
    return Visits(np.array(features), np.array(gains), np.array(owners))
