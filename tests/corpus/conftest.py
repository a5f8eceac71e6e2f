"""Fixtures of this room: real code, a tokenizer trained on it, and a dataset with its contents."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from s3_server import put_contents, s3_server
from stack_data import Planted, planted_files, write_stack_v2

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class ByteLevelTokenizer:
    """A tiny byte-level BPE with the interface of a model's tokenizer."""

    core: Any
    vocab_size: int
    pad_id: int
    eot_id: int
    digest: str
    sizes: dict[int, int]

    def encode(self, text: str) -> list[int]:
        return self.core.encode(text).ids

    def decode(self, ids: list[int]) -> str:
        return self.core.decode(ids)

    def token_bytes(self, ids: list[int]) -> list[int]:
        return [self.sizes[token] for token in ids]


def standard_library_files(count: int) -> list[Path]:
    """Return modules of the standard library by name: the same on every run of one Python."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return [path for path in sorted(folder.glob("*.py")) if 4_000 < path.stat().st_size < 60_000][:count]


@pytest.fixture(scope="session")
def code_files() -> list[Path]:
    return standard_library_files(24)


@pytest.fixture(scope="session")
def tokenizer(code_files: list[Path]) -> ByteLevelTokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[END_OF_TEXT],
    )
    core.train_from_iterator((path.read_text() for path in code_files[:6]), trainer)
    # Each character of GPT-2's printable alphabet stands for one byte.
    sizes = {token: len(name) for name, token in core.get_vocab().items()}
    eot = core.token_to_id(END_OF_TEXT)
    size = core.get_vocab_size()
    return ByteLevelTokenizer(core, size, size, eot, "tiny", {**sizes, eot: 0})


@pytest.fixture(scope="session")
def planted() -> Planted:
    """Files of invented repositories, as a dataset describes them."""
    return planted_files(count=90, copies=4)


@pytest.fixture(scope="session")
def endpoint(planted: Planted) -> Iterator[str]:
    """An S3 server with the contents of these files."""
    with s3_server() as url:
        put_contents(url, "softwareheritage", planted.contents)
        yield url


@pytest.fixture(scope="session")
def snapshot(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that describes these files."""
    return write_stack_v2(tmp_path_factory.mktemp("v2"), planted.files, ["Python"], parts=3)
