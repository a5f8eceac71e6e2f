"""Streams to play policies on: what a policy is shown, chunk by chunk, as the loop would show it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.policies.base import Decision, Observation

#: Streams are padded to this many chunks, and groups to this many streams, so that each kind of rule compiles once.
CHUNKS, STREAMS = 104, 80


def _one_stream(decide: Any, params: Any, start: Any, signal: Any, chunks: Any, key: Any) -> Decision:
    def chunk(state: Any, t: Any) -> tuple[Any, Decision]:
        value = signal[t]
        seen = Observation(t, chunks - t - 1, value, value, value, value, jnp.asarray(jnp.nan), jnp.zeros(64))
        decision = decide(params, state, seen, jax.random.fold_in(key, t))
        return decision.state, decision._replace(state=())

    return jax.lax.scan(chunk, start, jnp.arange(len(signal)))[1]


_PLAY = jax.jit(jax.vmap(_one_stream, in_axes=(None, None, None, 0, 0, 0)), static_argnums=0)


@pytest.fixture(scope="session")
def play() -> Callable[..., list[Decision]]:
    """``play(policy, lengths, signals=None, seed=0)``: the decisions of each stream; a chunk's signals are all equal."""

    def run(policy: Any, lengths: Any, signals: Any = None, seed: int = 0) -> list[Decision]:
        group = max(len(lengths), STREAMS)
        padded = np.resize(np.asarray(lengths), group)
        shown = np.zeros((group, CHUNKS), np.float32)
        for row, values in zip(shown, () if signals is None else signals, strict=False):
            row[: len(values)] = values
        keys = jax.random.split(jax.random.key(seed), group)
        played = _PLAY(type(policy).decide, policy.params, policy.init(), jnp.asarray(shown), padded, keys)
        arrays = [np.asarray(part) for part in (played.action, played.score, played.rank, played.cuts)]
        return [Decision((), *(part[i, :n] for part in arrays)) for i, n in enumerate(lengths)]

    return run


@pytest.fixture
def seen() -> Observation:
    """The first of ten chunks."""
    zero = jnp.asarray(0.0)
    return Observation(jnp.asarray(0), jnp.asarray(9), zero, zero, zero, zero, zero, jnp.zeros(64))
