"""Tiny models that the tests of this room share, so that their programs are compiled once."""

from __future__ import annotations

import jax
import pytest

from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.families.family import Shape
from ponderttt.models.families.gemma3 import Gemma3Config
from ponderttt.models.families.gpt2 import GPT2Config
from tiny_llama import tiny_llama

TINY: dict[str, Shape] = {
    "llama": tiny_llama(vocab_size=61, layers=3),
    "gpt2": GPT2Config(61, 3, 32, 4, 48, 1e-5, 512),
    # Local, global, local; a window that is shorter than what the tests read.
    "gemma3": Gemma3Config(61, 3, 32, 4, 2, 8, 48, 1e-6, 512, 8, 100, 1e4, 1e6, 8.0, global_every=2),
}


@pytest.fixture(scope="session", params=TINY)
def tiny(request: pytest.FixtureRequest) -> Backbone:
    """A random model of three blocks, of every family."""
    return random_backbone(TINY[request.param], jax.random.key(0))
