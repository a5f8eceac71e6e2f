"""A corpus: which source files of one language and split, where they come from, and which of them are kept.

On its own, so that what a corpus is made with does not depend on the settings of models and policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ponderttt.errors import ConfigError, unknown
from ponderttt.settings.hub import ACCESS, HubConfig

#: Languages whose source files are known by their names.
LANGUAGES = ("Python", "JavaScript", "Java", "Go")
#: Kinds of corpus that are rows of a dataset.
DATASET_KINDS = ("stack_v2", "stack_v3", "text")


@dataclass(frozen=True)
class FilterConfig:
    """Which source files are kept; sizes in bytes, shares in 0..1."""

    min_bytes: int = 64
    max_bytes: int = 1_048_576
    max_line_length: int = 1_000
    max_mean_line_length: float = 100.0
    min_alphanumeric_share: float = 0.25
    licenses: tuple[str, ...] = (
        "MIT",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "PSF-2.0",
        "Unlicense",
        "CC0-1.0",
        "0BSD",
    )
    near_duplicate_threshold: float = 0.7
    near_duplicate_permutations: int = 250


def settings_of_files(corpus: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings of a corpus out of a dataset those that its files depend on.

    Neither how many chunks are made of them, nor who may read the dataset and how contents are fetched.
    """
    hub = {key: value for key, value in corpus["hub"].items() if key not in ACCESS}
    return {**corpus, "chunks_per_stream": None, "hub": hub}


@dataclass(frozen=True)
class CorpusConfig:
    """Source files of one language and split.

    ``wheel``, ``npm``, ``debian``: the rows of ``packages`` (a CSV list with sha256 and license) that match
    ``language`` and ``split``, or only those named in ``only``.  ``files``: the folder or checkout ``path``,
    each of whose top-level folders is a repository unless ``single_repository``.  ``random_tokens`` and ``repeated``:
    controls made from the chunks of the corpus ``source``: tokens drawn uniformly, and its streams' first chunks over
    and over.  ``stack_v2``, ``stack_v3``, ``text``: rows of the dataset that ``hub`` names.
    """

    kind: Literal[
        "wheel", "npm", "debian", "files", "random_tokens", "repeated", "stack_v2", "stack_v3", "text"
    ]
    #: As the dataset calls it; of packages and files one of Python, JavaScript, Java and Go.
    language: str
    split: str
    packages: str | None = None
    only: tuple[str, ...] = ()
    path: str | None = None
    license: str | None = None
    source: str | None = None
    single_repository: bool = True
    max_streams: int | None = None
    chunks_per_stream: int | None = None
    filters: FilterConfig = FilterConfig()
    hub: HubConfig | None = None

    def __post_init__(self) -> None:
        if self.is_dataset:
            if self.hub is None:
                raise ConfigError(f"a corpus of kind {self.kind} needs the key 'hub' (the dataset)")
            if self.kind == "text" and self.hub.repository is None and self.hub.path is None:
                raise ConfigError("a corpus of kind text needs the key 'hub.repository' or 'hub.path'")
            return
        if self.hub is not None:
            raise ConfigError(
                f"a corpus of kind {self.kind} has no key 'hub'; that is for {', '.join(DATASET_KINDS)}"
            )
        if self.language not in LANGUAGES:
            raise ConfigError(unknown("language", self.language, LANGUAGES))
        if self.kind == "files" and not (self.path and self.license):
            raise ConfigError(
                "a corpus of kind files needs the keys 'path' and 'license' (the SPDX name of your files' license)"
            )
        if self.is_control:
            for key in ("source", "max_streams", "chunks_per_stream"):
                if not getattr(self, key):
                    raise ConfigError(f"a corpus of kind {self.kind} needs the key '{key}'")
        elif self.kind != "files" and not self.packages:
            raise ConfigError(f"a corpus of kind {self.kind} needs the key 'packages' (a CSV list)")

    @property
    def is_dataset(self) -> bool:
        """Whether it is made of the rows of a dataset, in many jobs."""
        return self.kind in DATASET_KINDS

    @property
    def dataset_config(self) -> str | None:
        """The configuration of the dataset that is read; ``None`` where it is not asked for one."""
        assert self.hub is not None
        if self.hub.config is not None:
            return self.hub.config or None
        return self.language if self.kind == "stack_v2" and self.hub.repository is None else None

    @property
    def is_running_text(self) -> bool:
        """Whether its rows are passages of one text, of which none is a copy of another in the sense that files are."""
        return self.kind == "text" and self.hub is not None and self.hub.repository_column is None

    @property
    def is_control(self) -> bool:
        """Whether it is made from another corpus, to show what can and what cannot be learned."""
        return self.kind in ("random_tokens", "repeated")
