"""Corpora of hundreds of gigabytes: a dataset of the Hugging Face hub, and where the contents of its files are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from ponderttt.errors import ConfigError

#: Dataset of each kind of corpus, unless the configuration names another.
DATASETS = {"stack_v2": "bigcode/the-stack-v2-dedup", "stack_v3": "HuggingFaceCode/stack-v3-train"}
#: Keys of ``hub`` that say who may read and how contents are fetched: whatever they are, a corpus has the same files.
ACCESS = ("accept_terms", "contents")
_COMMIT = re.compile(r"[0-9a-f]{40}")
#: Name of a bucket, or of an access point to one.
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:\S+")


@dataclass(frozen=True)
class ContentsConfig:
    """How contents are fetched of a dataset that only names them: ``s3://{bucket}/{prefix}{blob_id}``, gzip."""

    bucket: str = "softwareheritage"
    prefix: str = "content/"
    #: Of the S3 server; ``None`` is Amazon's.
    endpoint: str | None = None
    region: str = "us-east-1"
    #: Ask with the credentials that boto3 finds, where there are any; without them requests are not signed.
    signed: bool = False
    #: Requests at once.
    connections: int = 64
    #: Of one object; between them is a random pause that grows up to ``longest_pause``.
    attempts: int = 8
    longest_pause: float = 20.0
    #: Seconds that one answer may take, from the request to its last byte.
    timeout: float = 60.0
    #: How often the job of a bucket may ask again, of all objects together; each content that comes gives one back.  When
    #: they are spent the job asks for nothing more and fails with a list.
    retries: int = 500
    #: Share of a segment's files that may be missing in the end; beyond it the job fails with a list.
    max_failures: float = 0.0
    #: Files that are fetched and written together; an interruption loses no more.
    segment_files: int = 2_000

    def __post_init__(self) -> None:
        for key in ("connections", "attempts", "segment_files"):
            if getattr(self, key) < 1:
                raise ConfigError(f"contents.{key} is {getattr(self, key)}; it is at least 1")
        for key in ("retries", "longest_pause"):
            if getattr(self, key) < 0:
                raise ConfigError(f"contents.{key} is {getattr(self, key)}; it is at least 0")
        if not self.timeout > 0:
            raise ConfigError(f"contents.timeout is {self.timeout}; it is more than 0 seconds")
        if not _BUCKET.fullmatch(self.bucket):
            raise ConfigError(
                f"contents.bucket is {self.bucket}; it is the name alone, such as softwareheritage, without s3:// and path"
            )
        if self.endpoint is not None and not _is_url(self.endpoint):
            raise ConfigError(
                f"contents.endpoint is {self.endpoint}; it is a URL such as http://localhost:5000, or null for Amazon's"
            )
        if not 0 <= self.max_failures < 1:
            raise ConfigError(
                f"contents.max_failures is {self.max_failures}; it is a share from 0 to below 1"
            )


def _is_url(text: str) -> bool:
    """Whether a server can be asked at that address."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


@dataclass(frozen=True)
class HubConfig:
    """Which rows of a dataset make a corpus, and in how many jobs."""

    #: ``None`` is the usual one of the kind of corpus.
    repository: str | None = None
    #: Commit of the dataset; ``None`` only with ``path``.
    revision: str | None = None
    #: A snapshot that lies here instead: a folder of Parquet, JSON or text files.
    path: str | None = None
    #: Configuration of the dataset; ``None`` is the corpus' language where the dataset has one for each.
    config: str | None = None
    dataset_split: str = "train"
    #: You have read and accept the terms of the dataset, and of the bulk download of contents.
    accept_terms: bool = False
    #: Jobs that read the dataset, and jobs that fetch contents: so many of each, whatever the data is.
    parts: int = 1
    #: Rows of each part; ``None`` is all.
    rows_per_part: int | None = None
    #: Repositories whose stable hash, a number from 0 to below 1, lies in here belong to the corpus.
    hash_from: float = 0.0
    hash_to: float = 1.0
    license_types: tuple[Literal["permissive", "no_license", "non_permissive"], ...] = ("permissive",)
    #: File of repositories (owner/name) or owners (owner/), one a line, that want to be left out.
    opt_out: str | None = None
    #: Files of benchmark problems (JSON, JSON Lines, also gzip, or Parquet) whose text must not be in the corpus.
    decontaminate: tuple[str, ...] = ()
    contents: ContentsConfig = ContentsConfig()
    #: Columns of a corpus of kind ``text``.
    text_column: str = "text"
    #: Column that names the repository of a row; ``None``: all rows of a file are one stream.
    repository_column: str | None = None
    path_column: str | None = None
    #: Column with the license of a row, an SPDX name in any case; without it nothing is asked about licenses.
    license_column: str | None = None
    #: Column that says whether a program wrote the row.
    generated_column: str | None = None
    #: A line that matches begins a new document, where rows are lines of one text.
    document_start: str | None = None

    def __post_init__(self) -> None:
        if self.path is None and not _COMMIT.fullmatch(self.revision or ""):
            raise ConfigError(
                f"hub.revision is {self.revision}; name the commit of the dataset (40 hexadecimal digits), so that everyone reads "
                "the same rows"
            )
        if self.parts < 1:
            raise ConfigError(f"hub.parts is {self.parts}; it is at least 1")
        if self.document_start is not None:
            if self.parts > 1:
                raise ConfigError(
                    f"hub.document_start and hub.parts {self.parts}: a document may begin in one part and end in the next; set "
                    "hub.parts to 1"
                )
            try:
                re.compile(self.document_start)
            except re.error as error:
                raise ConfigError(
                    f"hub.document_start is {self.document_start!r}, which is no regular expression: {error}"
                ) from None
        if not 0 <= self.hash_from < self.hash_to <= 1:
            raise ConfigError(
                f"hub.hash_from {self.hash_from} and hub.hash_to {self.hash_to}: 0 ≤ from < to ≤ 1"
            )
