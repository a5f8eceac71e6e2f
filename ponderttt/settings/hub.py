"""Corpora of hundreds of gigabytes: a dataset of the Hugging Face hub, and where the contents of its files are."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from ponderttt.settings.mapping import KeyProblem, settings
from ponderttt.settings.values import Count, CountOrZero, Distinct, LocalPath, NotNegative, Positive, Share

#: Dataset of each kind of corpus, unless the configuration names another.
DATASETS = {"stack_v2": "bigcode/the-stack-v2-dedup", "stack_v3": "HuggingFaceCode/stack-v3-train"}
#: Keys of ``hub`` about access and download; a corpus has the same files for any value of theirs.
ACCESS = ("accept_terms", "contents")
_COMMIT = re.compile(r"[0-9a-f]{40}")
#: Name of a bucket, or of an access point to one.
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:\S+")


def _bucket(text: str) -> str:
    if not _BUCKET.fullmatch(text):
        raise ValueError(
            f"must be the name alone, such as softwareheritage, without s3:// and path; got {text!r}"
        )
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise ValueError(f"must be a URL such as http://localhost:5000, or null for Amazon's; got {text!r}")
    return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression, got {text!r}: {error}") from None
    return text


@settings
class ContentsConfig:
    """Download of contents that a dataset only names: ``s3://{bucket}/{prefix}{blob_id}``, gzip."""

    bucket: Annotated[str, AfterValidator(_bucket)] = Field(
        default="softwareheritage", description="Name of the S3 bucket, without s3://."
    )
    prefix: str = Field(default="content/", description="Text before the blob_id in a key.")
    endpoint: Annotated[str, AfterValidator(_url)] | None = Field(
        default=None, description="URL of the S3 server, such as http://localhost:5000; null is Amazon's."
    )
    region: str = Field(default="us-east-1", description="Region of the bucket.")
    signed: bool = Field(
        default=False,
        description="Sign requests with the credentials of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or of AWS_PROFILE.",
    )
    connections: Count = Field(default=64, description="Requests at once.")
    attempts: Count = Field(
        default=8, description="Largest number of attempts for one object, with random pauses that grow."
    )
    longest_pause: NotNegative = Field(
        default=20.0, description="Longest pause between two attempts, in seconds."
    )
    timeout: Positive = Field(
        default=60.0,
        description="Longest time for one answer, from the request to its last byte, in seconds.",
    )
    retries: CountOrZero = Field(
        default=500,
        description="Repeated requests that the job of one bucket may make for all its objects together; each content that "
        "arrives gives one back. When none is left, the job fails with a list.",
    )
    max_failures: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Largest fraction of a segment's files that may be missing in the end. After a change, buckets ask again "
        "for what they miss.",
    )
    segment_files: Count = Field(
        default=2_000,
        description="Files that are fetched and written together; an interruption loses no more.",
    )


@settings
class HubConfig:
    """The rows of a dataset that make a corpus, and the number of jobs that read them."""

    repository: str | None = Field(
        default=None, description="Name of the dataset on the hub; null is the usual one of the kind."
    )
    revision: str | None = Field(
        default=None, description="Commit of the dataset (40 hexadecimal digits); may be null only with path."
    )
    path: LocalPath | None = Field(
        default=None,
        description="Snapshot on this disk instead: a folder of Parquet, JSON or text files, or one file.",
    )
    config: str | None = Field(
        default=None,
        description="Configuration of the dataset; null is the language if the dataset has one for each.",
    )
    dataset_split: str = Field(default="train", description="Split of the dataset.")
    accept_terms: bool = Field(
        default=False,
        description="true: you have read and accept the terms of the dataset and of the bulk download of contents.",
    )
    parts: Count = Field(
        default=1, description="Number of jobs that read the dataset, and of jobs that fetch contents."
    )
    rows_per_part: Count | None = Field(default=None, description="Rows to read of each part; null is all.")
    hash_from: Share = Field(
        default=0.0, description="Keep repositories whose stable hash (0 to 1) is at least this."
    )
    hash_to: Share = Field(default=1.0, description="Keep repositories whose stable hash is below this.")
    license_types: Distinct[Literal["permissive", "no_license", "non_permissive"]] = Field(
        default=("permissive",), description="Types of license to keep."
    )
    opt_out: LocalPath | None = Field(
        default=None,
        description="File of repositories (owner/name) and owners (owner/) to leave out, one per line.",
    )
    decontaminate: Distinct[LocalPath] = Field(
        default=(),
        description="Files of benchmark problems (JSON or JSON Lines, also gzip, or Parquet) whose text must not be in the "
        "corpus.",
    )
    contents: ContentsConfig = ContentsConfig()
    text_column: str = Field(default="text", description="text: column of the text.")
    repository_column: str | None = Field(
        default=None,
        description="text: column that names the repository; null makes all rows of a file one stream.",
    )
    path_column: str | None = Field(default=None, description="text: column of the path.")
    license_column: str | None = Field(
        default=None,
        description="text: column of a row's license, an SPDX name in any case; null checks no license.",
    )
    generated_column: str | None = Field(
        default=None, description="text: column that says whether a program wrote the row."
    )
    document_start: Annotated[str, AfterValidator(_pattern)] | None = Field(
        default=None,
        description="text: regular expression of a line that begins a document, if rows are lines of one text.",
    )

    def __post_init__(self) -> None:
        if self.path is None and not _COMMIT.fullmatch(self.revision or ""):
            raise KeyProblem(
                "revision",
                f"must be the commit of the dataset (40 hexadecimal digits), so that everyone reads the same rows; got "
                f"{self.revision!r}",
            )
        if self.document_start is not None and self.parts > 1:
            raise KeyProblem(
                "parts",
                f"must be 1 with document_start, got {self.parts}: a document may begin in one part and end in the next",
            )
        if not self.hash_from < self.hash_to:
            raise KeyProblem(
                "hash_from", f"must be less than hash_to, got {self.hash_from} and {self.hash_to}"
            )
