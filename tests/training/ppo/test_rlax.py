"""Advantages and λ-returns against those of rlax, kept in a file by make_goldens.py."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from ponderttt.training.ppo.advantages import gae

CASES = ("usual", "truncated", "always_ending", "one_step", "rewards_alone", "undiscounted")
GAE = jax.jit(gae)


@pytest.mark.parametrize("case", CASES)
def test_advantages_and_lambda_returns_are_those_of_rlax(case):
    with np.load(Path(__file__).with_name("goldens.npz")) as stored:
        assert {key.split("/")[0] for key in stored.files} == set(CASES)
        part = {key.split("/")[1]: stored[key] for key in stored.files if key.startswith(f"{case}/")}
    gamma, lam = (float(value) for value in part["settings"])
    found = GAE(part["rewards"], part["values"], part["last_value"], part["ends"], gamma, lam)
    np.testing.assert_allclose(found, part["advantages"], atol=1e-5)
    np.testing.assert_allclose(found + part["values"], part["returns"], atol=1e-5)
