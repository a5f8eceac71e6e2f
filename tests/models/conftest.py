"""A tiny model that the tests of this room share, so that its programs are compiled once."""

from __future__ import annotations

import jax
import pytest

from ponderttt.models.backbone import Backbone, random_backbone
from tiny_llama import tiny_llama

TINY = tiny_llama(vocab_size=61, layers=3)


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    """A random model of three blocks."""
    return random_backbone(TINY, jax.random.key(0))
