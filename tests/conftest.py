"""Fixtures that many tests share, and the cache of compiled programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import pytest

from ponderttt.fast_weights.base import FastWeights
from ponderttt.frozen.chunks import FrozenChunks
from ponderttt.models.backbone import Backbone, random_backbone
from ponderttt.models.suffix import SuffixWeights
from ponderttt.names import KINDS
from tiny_families import TINY
from tiny_streams import UNEMBEDDING, awake, make_stream, random_tokens, suffix_block

# Tests compile the same small programs again and again; later runs read them from here.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session")
def unembedding() -> jax.Array:
    """A random vocabulary projection."""
    return UNEMBEDDING


@pytest.fixture(scope="session")
def suffix() -> SuffixWeights:
    """The frozen block after the split layer."""
    return suffix_block()


@pytest.fixture(scope="session")
def streams() -> list[FrozenChunks]:
    """Three streams of different lengths; the second ends in a half-empty chunk."""
    return [
        make_stream("one", random_tokens(1, 3)),
        make_stream("two", random_tokens(2, 2), last=20),
        make_stream("three", random_tokens(3, 3)),
    ]


@pytest.fixture(scope="session")
def awake_modules() -> dict[str, FastWeights]:
    """One awake module of each kind."""
    return {kind: awake(kind) for kind in KINDS}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Side by side (``-n 2``), files stay whole, and so does the workflow: both share what is dear."""
    from xdist.scheduler import LoadScopeScheduling

    class Whole(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "workflow" if "workflow" in Path(file).parts else file

    return Whole(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no worker waits for another in the end."""
    longest = ("workflow", "training", "loop")

    def place(item: pytest.Item) -> int:
        parts = item.path.relative_to(Path(__file__).parent).parts
        return next((n for n, name in enumerate(longest) if name in parts), len(longest))

    items.sort(key=place)


@pytest.fixture(scope="session", params=TINY)
def tiny(request: pytest.FixtureRequest) -> Backbone:
    """A random model of three blocks, of every family."""
    return random_backbone(TINY[request.param], jax.random.key(0))
