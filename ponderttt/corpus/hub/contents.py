"""Contents by their sha1 from an S3 bucket of gzip objects, many at a time, each verified before anybody sees it.

A ``blob_id`` is the sha1 of the raw bytes and a ``content_id`` the sha1 that git gives to them, so whatever a server or a
wire does to an object, it is noticed; it is then asked for again, and in the end either the true bytes are there or a
reason why not.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from ponderttt.corpus.files import blob_id, content_id
from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.errors import PonderTTTError
from ponderttt.settings.hub import ContentsConfig

T = TypeVar("T")
R = TypeVar("R")

#: Why a content is not there, and whether asking again could help.
REASONS = {
    "not_found": False,
    "unknown_encoding": False,
    "undecodable": False,
    "throttled": True,
    "network": True,
    "not_gzip": True,
    "truncated": True,
    "wrong_blob_id": True,
    "wrong_content_id": True,
}
#: Of a file whose true bytes are no text: it is dropped, since it will never be one.
UNREADABLE = frozenset({"unknown_encoding", "undecodable"})
#: Codes of a server that will not change its mind however often it is asked.
_REFUSALS = frozenset(
    "AccessDenied AllAccessDisabled InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken InvalidToken NoSuchBucket 401 403".split()
)
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})


class Failed(Exception):
    """A content is not there, for one of :data:`REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Content(NamedTuple):
    """What became of one file: its raw bytes and text, or the reason why not."""

    raw: bytes | None
    text: str | None
    failure: str | None


class ContentClient:
    """Asks one bucket for contents; threads may share it."""

    def __init__(self, config: ContentsConfig) -> None:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config

        self.config = config
        self._s3: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=config.endpoint,
            region_name=config.region,
            config=Config(
                signature_version="s3v4" if config.signed else UNSIGNED,
                max_pool_connections=config.connections,
                # Slows all requests down together while a server asks for that; what comes damaged is asked for again here.
                retries={"mode": "adaptive", "total_max_attempts": 2},
                connect_timeout=config.timeout,
                read_timeout=config.timeout,
                s3={"addressing_style": "path"} if config.endpoint else {},
            ),
        )

    def content(self, file: Candidate) -> Content:
        """The content of a file.

        Raises:
            PonderTTTError: the server refuses everything, so that going on has no sense.
        """
        import tenacity

        if not is_encoding(file.src_encoding):
            return Content(None, None, "unknown_encoding")
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, Failed) and REASONS[e.reason]),
            stop=tenacity.stop_after_attempt(self.config.attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=self.config.longest_pause),
            reraise=True,
        )
        try:
            raw = retrying(self._verified, file)
            return Content(raw, decoded(raw, file.src_encoding), None)
        except Failed as failure:
            return Content(None, None, failure.reason)

    def _verified(self, file: Candidate) -> bytes:
        raw = unzipped(self._fetch(file.blob_id))
        if blob_id(raw) != file.blob_id:
            raise Failed("wrong_blob_id")
        if content_id(raw) != file.content_id:
            raise Failed("wrong_content_id")
        return raw

    def _fetch(self, blob: str) -> bytes:
        from botocore import exceptions
        from urllib3.exceptions import HTTPError

        key = f"{self.config.prefix}{blob}"
        try:
            body: bytes = self._s3.get_object(Bucket=self.config.bucket, Key=key)["Body"].read()
        except exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                raise Failed("not_found") from None
            if code in _REFUSALS:
                raise PonderTTTError(self._refusal(code)) from None
            raise Failed("throttled") from None
        except exceptions.NoCredentialsError:
            raise PonderTTTError(self._refusal("no credentials")) from None
        except (exceptions.BotoCoreError, HTTPError, OSError):
            raise Failed("network") from None
        return body

    def _refusal(self, code: str) -> str:
        where = f"s3://{self.config.bucket} at {self.config.endpoint or 'Amazon S3'}"
        if code == "NoSuchBucket":
            return f"{where}: no such bucket; check hub.contents.bucket and hub.contents.endpoint"
        remedy = (
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or set hub.contents.signed to false for a public bucket"
            if self.config.signed
            else "set hub.contents.signed to true and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to credentials that may read it"
        )
        return f"{where} refuses ({code}); {remedy}"


def unzipped(body: bytes) -> bytes:
    """The bytes of one gzip member that fills an object.

    Raises:
        Failed: it is none, or not all of it.
    """
    member = zlib.decompressobj(wbits=31)
    try:
        raw = member.decompress(body)
    except zlib.error:
        raise Failed("not_gzip") from None
    if not member.eof:
        raise Failed("truncated")
    if member.unused_data:
        raise Failed("not_gzip")
    return raw


def is_encoding(name: str) -> bool:
    """Whether bytes can become text by an encoding of that name."""
    try:
        b"a".decode(name)
    except UnicodeDecodeError:
        return True
    except (LookupError, ValueError):
        return False
    return True


def decoded(raw: bytes, encoding: str) -> str:
    """The text of a file.

    Raises:
        Failed: the bytes are none in that encoding, or what they say cannot be written as UTF-8 (half of a surrogate pair).
    """
    try:
        text = raw.decode(encoding)
        if not text.isascii():
            text.encode()
    except UnicodeError:
        raise Failed("undecodable") from None
    return text


def in_order(
    function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int | None = None
) -> Iterator[tuple[T, R]]:
    """``function`` of every item, ``workers`` at a time, in the order of the items whatever the order of arrival.

    No more than ``ahead`` results wait for their turn (four for each worker by default).
    """
    limit = 4 * workers if ahead is None else ahead
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) >= limit:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
