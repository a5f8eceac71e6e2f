"""Fixtures that many tests share, how tests are compiled, and their order."""

from __future__ import annotations

import optimised

optimised.set_flags()  # Before any import below: some compute, and XLA reads its flags once.

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from compiled import forget_if_large
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


#: Files of the workflow that share no study with others.
OWN_STUDY = ("test_families.py", "test_profiles.py", "test_transfer.py")


def pytest_configure(config: pytest.Config) -> None:
    """Give tests marked ``optimised`` a process of their own."""
    optimised.register(config)


@pytest.fixture(scope="module", autouse=True)
def _small_process() -> Iterator[None]:
    """Keep a test process below 3 GB."""
    yield
    forget_if_large()


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
    """With ``-n 2``, keep each file on one worker, and what shares the finished study of the workflow too."""
    from xdist.scheduler import LoadScopeScheduling

    class Whole(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(nodeid.split("::", 1)[0])
            return "workflow" if "workflow" in file.parts and file.name not in OWN_STUDY else str(file)

    return Whole(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest rooms, so that no worker waits for another at the end."""
    longest = ("workflow", "training", "loop")

    def place(item: pytest.Item) -> int:
        parts = item.path.relative_to(Path(__file__).parent).parts
        return next((n for n, name in enumerate(longest) if name in parts), len(longest))

    items.sort(key=place)


@pytest.fixture(scope="session", params=TINY)
def tiny(request: pytest.FixtureRequest) -> Backbone:
    """A random model of three blocks, of every family."""
    return random_backbone(TINY[request.param], jax.random.key(0))
