"""A tiny model that the tests of this room share, so that its programs are compiled once."""

from __future__ import annotations

import jax
import pytest

from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.llama import LlamaConfig

TINY = LlamaConfig(
    vocab_size=61,
    layers=3,
    width=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp_width=48,
    rope_base=1e4,
    norm_eps=1e-5,
    max_context=512,
    tied=True,
)


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    """A random model of three blocks."""
    return random_backbone(TINY, jax.random.key(0))
