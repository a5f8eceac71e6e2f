"""Random keys follow from the configured seed and from names, whatever the process and the order."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponderttt.seeds import named_key

NAMES = ("policy", "große Pakete/a.py", 7)


def numbers(*arguments) -> list[int]:
    return np.asarray(jax.random.key_data(named_key(*arguments))).tolist()


def test_a_key_is_the_same_in_processes_that_hash_strings_differently():
    """Python's hash differs between processes."""
    program = (
        "import jax, numpy, ponderttt.seeds as s;"
        f"print(hash('a'), numpy.asarray(jax.random.key_data(s.named_key(11, *{NAMES!r}))).tolist())"
    )
    answers = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "JAX_PLATFORMS": "cpu"}
        ran = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        answers.append(ran.stdout.split(maxsplit=1))
    assert answers[0][0] != answers[1][0]
    assert answers[0][1].strip() == answers[1][1].strip() == str(numbers(11, *NAMES))


@pytest.mark.parametrize(
    "other", [(12, *NAMES), (11, *NAMES[::-1]), (11, *NAMES[:2]), (11, "policy", "große Pakete/a.py", 8)]
)
def test_another_seed_name_order_or_number_gives_another_key(other):
    assert numbers(11, *NAMES) != numbers(*other)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.text(), max_size=3))
def test_any_seed_and_any_text_make_a_key(seed, names):
    assert numbers(seed, *names) == numbers(seed, *names)
