"""Compute advantages and λ-returns with rlax, or check the committed ones and this package against a fresh computation.

    python tests/training/ppo/make_goldens.py            writes tests/training/ppo/goldens.npz
    python tests/training/ppo/make_goldens.py --check    recomputes, and compares the file and ponderttt with it

Needs rlax (the committed file is of 0.1.6 with jax 0.10.2); nothing else in this project does.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

FILE = Path(__file__).with_name("goldens.npz")
TOLERANCE = 1e-5
TIME, ENVIRONMENTS = 23, 5


class Case(NamedTuple):
    """Discount, λ, and how often a chunk is the last of its stream."""

    gamma: float
    lam: float
    end_rate: float


CASES = {
    "usual": Case(0.99, 0.95, 0.15),
    "truncated": Case(0.99, 0.95, 0.0),
    "always_ending": Case(0.99, 0.95, 1.0),
    "one_step": Case(0.9, 0.0, 0.15),
    "rewards_alone": Case(0.9, 1.0, 0.15),
    "undiscounted": Case(1.0, 0.5, 0.15),
}


def inputs(name: str) -> dict[str, np.ndarray]:
    """The rollout of a case, drawn by its place in the list."""
    rng = np.random.default_rng(list(CASES).index(name))
    shape = (TIME, ENVIRONMENTS)
    return {
        "rewards": rng.normal(size=shape).astype(np.float32),
        "values": rng.normal(size=shape).astype(np.float32),
        "last_value": rng.normal(size=ENVIRONMENTS).astype(np.float32),
        "ends": rng.random(shape) < CASES[name].end_rate,
        "settings": np.asarray(CASES[name][:2]),
    }


def refer(rollout: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Advantages and λ-returns by rlax, trajectory by trajectory."""
    import rlax

    gamma, lam = (float(value) for value in rollout["settings"])
    advantages, returns = [], []
    for e in range(rollout["rewards"].shape[1]):
        rewards = jnp.asarray(rollout["rewards"][:, e])
        discounts = gamma * jnp.asarray(~rollout["ends"][:, e], jnp.float32)
        values = jnp.append(rollout["values"][:, e], rollout["last_value"][e])
        advantages.append(rlax.truncated_generalized_advantage_estimation(rewards, discounts, lam, values))
        returns.append(rlax.lambda_returns(rewards, discounts, values[1:], lam))
    return {"advantages": np.stack(advantages, axis=1), "returns": np.stack(returns, axis=1)}


def own(rollout: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same by this package."""
    from ponderttt.training.ppo.advantages import gae

    names = ("rewards", "values", "last_value", "ends")
    arrays = (jnp.asarray(rollout[name]) for name in names)
    gamma, lam = (float(value) for value in rollout["settings"])
    advantages = np.asarray(jax.jit(gae)(*arrays, gamma, lam))
    return {"advantages": advantages, "returns": advantages + rollout["values"]}


def read() -> dict[str, dict[str, np.ndarray]]:
    """The committed rollouts with their results, by case."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(FILE) as stored:
        for key in stored.files:
            name, part = key.split("/")
            cases.setdefault(name, {})[part] = stored[key]
    return cases


def write() -> None:
    """All cases into one file."""
    stored = {}
    for name in CASES:
        rollout = inputs(name)
        parts = {**rollout, **refer(rollout)}
        stored.update({f"{name}/{part}": value for part, value in parts.items()})
    np.savez_compressed(FILE, **stored)


def check(name: str, committed: dict[str, np.ndarray]) -> bool:
    """Compare the committed results of a case and this package's with a fresh computation of the reference."""
    fresh = refer(committed)
    passed = True
    for label, results in (("committed", committed), ("ponderttt", own(committed))):
        off = {part: float(np.abs(results[part] - fresh[part]).max()) for part in fresh}
        good = max(off.values()) <= TOLERANCE
        passed &= good
        print(
            f"{name:14s} {label:10s} advantages {off['advantages']:.1e}  returns {off['returns']:.1e}  {'ok' if good else 'DIFFERS'}"
        )
    return passed


def main() -> int:
    """Write or check; the exit status is 0 where everything agrees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if not parser.parse_args().check:
        write()
        return 0
    stored = read()
    passed = [check(name, stored[name]) for name in CASES]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
