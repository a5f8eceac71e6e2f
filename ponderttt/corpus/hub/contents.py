"""Fetch contents by sha1 from an S3 bucket of gzip objects, many at a time, and verify each.

A ``blob_id`` is the sha1 of the raw bytes, a ``content_id`` the sha1 that git gives them, so any damage shows.  A
damaged object is fetched again.  In the end either the true bytes are there, or a reason for their absence.  All waits
are limited: seconds per answer, attempts per object, retries per job.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from ponderttt.corpus.files import blob_id, content_id
from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.corpus.hub.deadlines import end_answers_in_time
from ponderttt.errors import PonderTTTError
from ponderttt.settings.hub import ContentsConfig

T = TypeVar("T")
R = TypeVar("R")

#: Why a content is missing, and whether another attempt could help.
REASONS = {
    "not_found": False,
    "forbidden": False,
    "not_asked": False,
    "unknown_encoding": False,
    "undecodable": False,
    "throttled": True,
    "network": True,
    "not_gzip": True,
    "truncated": True,
    "wrong_blob_id": True,
    "wrong_content_id": True,
}
#: Reasons to drop a file for good: its true bytes are not text.
UNREADABLE = frozenset({"unknown_encoding", "undecodable"})
#: The reason for a file that was not requested, since the job had no retries left.
NOT_ASKED = "not_asked"
#: Error codes that another attempt cannot change, and what to do about them.
_CREDENTIALS = frozenset("InvalidAccessKeyId SignatureDoesNotMatch ExpiredToken InvalidToken 401".split())
_REMEDIES = {
    "NoSuchBucket": "no such bucket; check hub.contents.bucket and hub.contents.endpoint",
    "PermanentRedirect": "the bucket is in another region; check hub.contents.region",
    "AuthorizationHeaderMalformed": "the bucket is in another region; check hub.contents.region",
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
}
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
#: Seconds to wait for a first content, which shows that a 403 concerns one object and not the whole bucket.
_FIRST_ANSWERS = 3.0
#: Longest first pause in seconds; each further one may be twice as long.
_FIRST_PAUSE = 0.3


class Failed(Exception):
    """A content is missing, for one of :data:`REASONS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Content(NamedTuple):
    """The raw bytes and text of a file, or the reason for their absence; bytes that are not text are kept."""

    raw: bytes | None
    text: str | None
    failure: str | None


class ContentClient:
    """A client of one bucket; threads may share it.

    Raises:
        PonderTTTError: the settings are not valid, or there are no credentials to sign with.
    """

    def __init__(self, config: ContentsConfig) -> None:
        self.config = config
        self._s3 = self._client()
        self._retries = _Retries(config.retries)
        #: Set once a content has arrived: the bucket does not refuse everything.
        self._came = threading.Event()

    def _client(self) -> Any:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = self.config
        settings = Config(
            signature_version="s3v4" if config.signed else UNSIGNED,
            max_pool_connections=config.connections,
            # Adaptive mode slows all requests down when a server says so; retries are decided here alone.
            retries={"mode": "adaptive", "total_max_attempts": 1},
            connect_timeout=config.timeout,
            read_timeout=config.timeout,
            s3={"addressing_style": "path"} if config.endpoint else {},
        )
        try:
            session = _session(config.signed)
        except BotoCoreError as error:
            raise self._unusable(error, self._remedy()) from None
        if session is None:
            raise PonderTTTError(f"{self._where()}: no credentials to sign with; {self._remedy()}")
        try:
            s3 = boto3.session.Session(botocore_session=session).client(
                "s3", endpoint_url=config.endpoint, region_name=config.region, config=settings
            )
        except (BotoCoreError, ValueError) as error:
            raise self._unusable(error, "check hub.contents.endpoint and hub.contents.region") from None
        end_answers_in_time(s3)
        return s3

    def came_before(self) -> None:
        """Note that contents of the bucket are on disk already, so it does not refuse everything."""
        self._came.set()

    def content(self, file: Candidate) -> Content:
        """Fetch the content of a file.

        Raises:
            PonderTTTError: the server refuses everything.
        """
        import tenacity

        if not is_encoding(file.src_encoding):
            return Content(None, None, "unknown_encoding")
        if self._retries.spent:
            return Content(None, None, NOT_ASKED)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, Failed) and REASONS[e.reason]),
            stop=lambda state: state.attempt_number >= self.config.attempts or not self._retries.take(),
            wait=tenacity.wait_random_exponential(multiplier=_FIRST_PAUSE, max=self.config.longest_pause),
            reraise=True,
        )
        try:
            raw = retrying(self._verified, file)
            self._retries.give_back()
            self._came.set()
        except Failed as failure:
            return Content(None, None, failure.reason)
        return as_text(raw, file)

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
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            raise self._answer(code, status) from None
        except exceptions.ParamValidationError as error:
            raise self._unusable(error, "check hub.contents.bucket and hub.contents.prefix") from None
        except (exceptions.BotoCoreError, HTTPError, OSError):
            raise Failed("network") from None
        return body

    def _answer(self, code: str, status: int | None) -> Exception:
        """Return the exception that an error of the server means."""
        if code in _MISSING:
            return Failed("not_found")
        if code in _REMEDIES:
            return PonderTTTError(f"{self._where()}: {_REMEDIES[code]}")
        # Where keys may not be listed, S3 answers 403 for missing keys too.
        denied = status == 403
        if code in _CREDENTIALS or (denied and not self._came.wait(_FIRST_ANSWERS)):
            return PonderTTTError(f"{self._where()} refuses ({code}); {self._remedy()}")
        return Failed("forbidden" if denied else "throttled")

    def _unusable(self, error: Exception, remedy: str) -> PonderTTTError:
        said = " ".join(str(error).split()).rstrip(".")
        return PonderTTTError(f"{self._where()}: {said}; {remedy}")

    def _where(self) -> str:
        return f"s3://{self.config.bucket} at {self.config.endpoint or 'Amazon S3'}"

    def _remedy(self) -> str:
        if self.config.signed:
            return (
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or set hub.contents.signed to false for a "
                "public bucket"
            )
        return "set hub.contents.signed to true and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to credentials that may read it"


class _Retries:
    """The retries that a job has left; threads may share it."""

    def __init__(self, most: int) -> None:
        self._left = self._most = most
        self._lock = threading.Lock()
        #: Stays True once set: the job ends.
        self.spent = False

    def take(self) -> bool:
        """Use one retry; return False if none was left."""
        with self._lock:
            if self._left == 0:
                self.spent = True
            if self.spent:
                return False
            self._left -= 1
            return True

    def give_back(self) -> None:
        """Return one retry, for a content that arrived."""
        with self._lock:
            self._left = min(self._most, self._left + 1)


def _session(signed: bool) -> Any | None:
    """Return a session with the credentials that boto3 finds; None if there are none to sign with.

    Unsigned requests ignore credential files and profiles.
    """
    from botocore.session import Session

    if not signed:
        nothing = (None, None, os.devnull, None)
        return Session(
            {"profile": (None, [], None, None), "config_file": nothing, "credentials_file": nothing}
        )
    session = Session()
    credentials = session.get_credentials()
    if credentials is None:
        return None
    credentials.get_frozen_credentials()
    return session


def unzipped(body: bytes) -> bytes:
    """Unzip an object that is one gzip member.

    Raises:
        Failed: the object is not gzip, or not complete.
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


def as_text(raw: bytes, file: Candidate) -> Content:
    """Decode the true bytes of a file; the result has the text, or the reason why there is none."""
    if not is_encoding(file.src_encoding):
        return Content(raw, None, "unknown_encoding")
    try:
        return Content(raw, decoded(raw, file.src_encoding), None)
    except Failed as failure:
        return Content(raw, None, failure.reason)


def is_encoding(name: str) -> bool:
    """Return whether Python knows a text encoding of this name."""
    try:
        b"a".decode(name)
    except UnicodeDecodeError:
        return True
    except (LookupError, ValueError):
        return False
    return True


def decoded(raw: bytes, encoding: str) -> str:
    """Decode the text of a file.

    Raises:
        Failed: the bytes are not valid in this encoding, or the text is not valid as UTF-8 (half of a surrogate pair).
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
) -> Generator[tuple[T, R], None, None]:
    """Call ``function`` on every item, ``workers`` at a time; yield the results in the order of the items.

    At most ``ahead`` results wait for their turn (default: four per worker).
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
