"""Tokens are drawn from exactly the requested distribution."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ponderttt.decoding.sampling import Chooser, Sampling, allowed
from ponderttt.errors import PonderTTTError

LOGITS = jnp.log(jnp.asarray([0.05, 0.4, 0.25, 0.2, 0.1]))


def kept(top_k: int, top_p: float) -> list[int]:
    found = allowed(LOGITS, jnp.asarray(top_k), jnp.asarray(top_p))
    return np.flatnonzero(np.isfinite(np.asarray(found))).tolist()


@pytest.mark.parametrize(
    ("top_k", "top_p", "expected"),
    [
        (0, 1.0, [0, 1, 2, 3, 4]),
        (2, 1.0, [1, 2]),
        # 0.4 < 0.6, 0.65 is not.
        (0, 0.6, [1, 2]),
        (0, 0.66, [1, 2, 3]),
        (0, 1e-6, [1]),
        # Of the two that k leaves, the first has 0.4 / 0.65 = 0.615.
        (2, 0.6, [1]),
        (2, 0.62, [1, 2]),
        (9, 1.0, [0, 1, 2, 3, 4]),
    ],
)
def test_top_k_is_applied_before_top_p(top_k: int, top_p: float, expected: list[int]) -> None:
    assert kept(top_k, top_p) == expected


def test_draws_have_the_frequencies_of_the_tempered_distribution() -> None:
    choose = Chooser(Sampling(temperature=2.0, top_k=3, seed=3))
    counts = Counter(choose(LOGITS) for _ in range(3000))
    weights = np.sqrt([0.4, 0.25, 0.2])
    expected = 3000 * weights / weights.sum()
    observed = np.array([counts[token] for token in (1, 2, 3)])
    assert sum(counts.values()) == observed.sum()
    # Chi-squared with two degrees of freedom; 13.8 is exceeded once in a thousand seeds.
    assert ((observed - expected) ** 2 / expected).sum() < 13.8


def test_greedy_takes_the_most_likely_token() -> None:
    assert Chooser(Sampling())(LOGITS) == 1


def test_seeds_differ_and_repeat() -> None:
    flat = jax.numpy.zeros(1000)

    def first(seed: int) -> list[int]:
        choose = Chooser(Sampling(temperature=1.0, seed=seed))
        return [choose(flat) for _ in range(4)]

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert len(set(first(1))) > 1


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"temperature": -1.0}, "temperature must be .*, got -1.0"),
        ({"temperature": float("nan")}, "temperature must be .*, got nan"),
        ({"temperature": float("inf")}, "temperature must be .*, got inf"),
        ({"temperature": 1e-40}, r"temperature must be 0 \(greedy\) or from 1e-06 to 1e\+06, got 1e-40"),
        ({"top_k": -1}, "top_k must be .*, got -1"),
        ({"top_k": 2**31}, "from 1 to 2147483647, got 2147483648"),
        ({"seed": -1}, "the seed of the draws must be .*, got -1"),
        ({"seed": 2**32}, "must be from 0 to 4294967295, got 4294967296"),
        ({"top_p": 0.0}, "top_p must be .*, got 0.0"),
        ({"top_p": 1.5}, "top_p must be .*, got 1.5"),
    ],
)
def test_a_setting_out_of_range_is_named(setting: dict[str, float], said: str) -> None:
    with pytest.raises(PonderTTTError, match=said):
        Sampling(**setting)


def test_the_outermost_settings_still_draw() -> None:
    logits = jnp.log(jnp.asarray([0.2, 0.8])) - 80.0
    assert Chooser(Sampling(temperature=1e-6, top_k=2**31 - 1, top_p=1e-300, seed=2**32 - 1))(logits) == 1
    choose = Chooser(Sampling(temperature=1e6))
    assert {choose(logits) for _ in range(64)} == {0, 1}
