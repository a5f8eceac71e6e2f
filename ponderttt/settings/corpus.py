"""A corpus: source files of one language and split, their origin, and the filters that choose them (``corpora``).

A module of its own, so that the digest of a corpus does not depend on the settings of models and policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from ponderttt.settings.hub import ACCESS, HubConfig
from ponderttt.settings.mapping import KeyProblem, UnknownName, settings
from ponderttt.settings.values import Count, CountOrZero, Distinct, LocalPath, NotNegative, Share

#: Languages whose source files are known by their names.
LANGUAGES = ("Python", "JavaScript", "Java", "Go")
#: Kinds of corpus that are rows of a dataset.
DATASET_KINDS = ("stack_v2", "stack_v3", "text")
#: Kinds of corpus that are pinned packages.
PACKAGE_KINDS = ("wheel", "npm", "debian")
#: What the files of a package or folder are.
Content = Literal["code", "generated", "documentation", "data"]
#: The settings of spans at their defaults: no file of a corpus depends on them.
_SPANS: Mapping[str, Any] = {"chunks_per_stream": None, "start": "seeded", "span_seed": 0}


@settings
class FilterConfig:
    """Filters that choose source files."""

    min_bytes: CountOrZero = Field(default=64, description="Size of the smallest file to keep, in bytes.")
    max_bytes: CountOrZero = Field(
        default=1_048_576, description="Size of the largest file to keep, in bytes."
    )
    max_line_length: CountOrZero = Field(
        default=1_000, description="Longest line of a file to keep, in characters."
    )
    max_mean_line_length: NotNegative = Field(
        default=100.0, description="Longest mean line of a file to keep, in characters."
    )
    min_alphanumeric_share: Share = Field(
        default=0.25, description="Smallest fraction of alphanumeric characters in a file to keep."
    )
    licenses: Distinct[str] = Field(
        default=(
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
        ),
        description="Licenses to keep, as SPDX names.",
    )
    near_duplicate_threshold: Share = Field(
        default=0.7,
        description="Jaccard similarity of word 5-grams from which two files are near duplicates.",
    )
    near_duplicate_permutations: Count = Field(default=250, description="Length of a MinHash signature.")


def settings_of_files(corpus: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a dataset's corpus, as plain values, that its files depend on.

    Left out: how many chunks are made, who may read the dataset, and how contents are fetched.
    """
    hub = {key: value for key, value in corpus["hub"].items() if key not in ACCESS}
    return {**corpus, **_SPANS, "hub": hub}


@settings
class CorpusConfig:
    """Source files of one language and split."""

    kind: Literal[
        "wheel",
        "npm",
        "debian",
        "files",
        "mixed",
        "random_tokens",
        "repeated",
        "stack_v2",
        "stack_v3",
        "text",
    ] = Field(
        description="wheel, npm, debian: pinned packages, those lines of packages that match language and split. files: a "
        "folder or checkout. mixed: streams made of segments of other corpora, those named in parts. random_tokens, repeated: "
        "controls made from the chunks of the corpus source, as tokens drawn uniformly and as its streams' first chunks over and "
        "over. stack_v2, stack_v3, text: rows of the dataset in hub."
    )
    language: str = Field(
        description="Language of the files: Python, JavaScript, Java or Go; for a dataset its own name of the language."
    )
    split: str = Field(description="Name of the split; for packages it selects lines of the list.")
    content: Content = Field(
        default="code",
        description="Packages and files: which files to take. code: source code in the language, without generated and vendored "
        "code. generated: only the latter. documentation: Markdown and reStructuredText. data: CSV, JSON, TOML and YAML.",
    )
    packages: LocalPath | None = Field(
        default=None,
        description="wheel, npm, debian: CSV list of pinned packages, with sha256 and license.",
    )
    only: Distinct[str] = Field(
        default=(), description="wheel, npm, debian: names of the list to use; empty is all."
    )
    path: LocalPath | None = Field(default=None, description="files: the folder.")
    license: str | None = Field(default=None, description="files: SPDX name of your files' license.")
    source: str | None = Field(
        default=None, description="random_tokens, repeated: name of the corpus that they are made from."
    )
    parts: dict[str, Distinct[str]] = Field(
        default_factory=dict,
        description="mixed: part → names of the corpora that give its segments. Every stream takes one segment of each part in a "
        "drawn order, and again from the first.",
    )
    segment_chunks: Count | None = Field(default=None, description="mixed: length of a segment in chunks.")
    single_repository: bool = Field(
        default=True,
        description="files: true if the folder is one repository, false if each of its top-level folders is one.",
    )
    max_streams: Count | None = Field(
        default=None, description="Largest number of repositories or packages; null is no limit."
    )
    chunks_per_stream: Count | None = Field(
        default=None,
        description="Largest number of chunks of each stream; null is no limit, and each stream a whole repository.",
    )
    start: Literal["seeded", "first"] = Field(
        default="seeded",
        description="Where a stream with a limit starts. seeded: at a file drawn by span_seed and the name of the repository, or "
        "at an earlier one if fewer chunks follow. first: at its first file.",
    )
    span_seed: CountOrZero = Field(
        default=0, description="The seed of starts, and of the order of a mixed corpus."
    )
    filters: FilterConfig = FilterConfig()
    hub: HubConfig | None = Field(
        default=None, description="stack_v2, stack_v3, text: the dataset, and how it is read."
    )

    def __post_init__(self) -> None:
        if self.content != "code" and self.kind not in (*PACKAGE_KINDS, "files"):
            raise KeyProblem(
                "content", f"is only for packages and files, not for a corpus of kind {self.kind}"
            )
        if self.kind == "mixed":
            self._check_mixed()
        elif self.parts or self.segment_chunks:
            key = "parts" if self.parts else "segment_chunks"
            raise KeyProblem(key, f"is only for the kind mixed, not for {self.kind}")
        if self.is_dataset:
            if self.hub is None:
                raise self._missing("hub", "the dataset")
            if self.kind == "text" and self.hub.repository is None and self.hub.path is None:
                raise self._missing("hub.repository", "or hub.path")
            return
        if self.hub is not None:
            raise KeyProblem("hub", f"is only for the kinds {', '.join(DATASET_KINDS)}, not for {self.kind}")
        if self.language not in LANGUAGES:
            raise UnknownName(self.language, LANGUAGES, "language")
        if self.kind == "files":
            if not self.path:
                raise self._missing("path", "the folder")
            if not self.license:
                raise self._missing("license", "the SPDX name of your files' license")
        elif self.is_made:
            needed = ("source",) if self.is_control else ("parts", "segment_chunks")
            for key in (*needed, "max_streams", "chunks_per_stream"):
                if not getattr(self, key):
                    raise self._missing(key)
        elif not self.packages:
            raise self._missing("packages", "a CSV list")

    def _check_mixed(self) -> None:
        for part, corpora in self.parts.items():
            if not corpora:
                raise KeyProblem(f"parts.{part}", "names no corpus")
        if self.chunks_per_stream and self.segment_chunks and self.chunks_per_stream % self.segment_chunks:
            raise KeyProblem(
                "chunks_per_stream",
                f"must be a multiple of segment_chunks, {self.segment_chunks}, got {self.chunks_per_stream}",
            )

    @property
    def of_files(self) -> CorpusConfig:
        """The settings that its files depend on: without the spans that become chunks."""
        return replace(self, **_SPANS)

    def _missing(self, key: str, what: str = "") -> KeyProblem:
        return KeyProblem(
            key, f"is missing: a corpus of kind {self.kind} needs it{f' ({what})' if what else ''}"
        )

    @property
    def is_dataset(self) -> bool:
        """Whether it is made of the rows of a dataset, in many jobs."""
        return self.kind in DATASET_KINDS

    @property
    def dataset_config(self) -> str | None:
        """The configuration of the dataset to read; ``None`` if no configuration is named."""
        assert self.hub is not None
        if self.hub.config is not None:
            return self.hub.config or None
        return self.language if self.kind == "stack_v2" and self.hub.repository is None else None

    @property
    def is_running_text(self) -> bool:
        """Whether its rows are passages of one text, which are no copies of one another in the sense that files are."""
        return self.kind == "text" and self.hub is not None and self.hub.repository_column is None

    @property
    def is_control(self) -> bool:
        """Whether it is a control, made from another corpus to show what can and cannot be learned."""
        return self.kind in ("random_tokens", "repeated")

    @property
    def is_made(self) -> bool:
        """Whether it is made from the chunks of other corpora, and has no files of its own."""
        return self.is_control or self.kind == "mixed"

    @property
    def of_packages(self) -> bool:
        """Whether it is made of pinned packages."""
        return self.kind in PACKAGE_KINDS
