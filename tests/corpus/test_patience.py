"""All waits for contents are limited: of an answer, of an object, and of a job."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fault_proxy import RESET, SLOW_DOWN, FaultProxy, always, first
from ponderttt.corpus.files import blob_id, content_id
from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.corpus.hub.contents import ContentClient
from ponderttt.errors import PonderTTTError
from ponderttt.settings.hub import ContentsConfig
from s3_server import content_key
from slow_server import Pace, SlowServer
from stack_builds import PATIENT, build, bytes_of, stack_corpus
from stack_data import Planted

RAW = b"print('hello')\n"
#: Seconds of a job besides waiting, on a busy machine.
SLACK = 6.0


def one_file() -> Candidate:
    return Candidate(
        "o/n", "a.py", blob_id(RAW), content_id(RAW), "Python", "permissive", (), "UTF-8", len(RAW), False, False,
        0, 0, 0, None,
    )  # fmt: skip


def asking(url: str, **changes: Any) -> ContentsConfig:
    config = ContentsConfig(endpoint=url, connections=8, longest_pause=0.01, timeout=0.5, segment_files=10)
    return replace(config, **changes)


@pytest.mark.parametrize("pace", [pace for pace in Pace if pace is not Pace.AT_ONCE], ids=lambda p: p.value)
def test_an_answer_that_does_not_end_takes_its_timeout_and_an_object_its_attempts(pace: Pace) -> None:
    with SlowServer({blob_id(RAW): RAW}, lambda blob, attempt: pace) as server:
        client = ContentClient(asking(server.url, attempts=3))
        begin = time.monotonic()
        assert client.content(one_file()).failure == "network"
        taken = time.monotonic() - begin
    # Byte by byte, one answer would take more than ten seconds.
    assert 3 * 0.5 <= taken < 3 * 0.5 + SLACK
    assert server.attempts == {blob_id(RAW): 3}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 with its key in the same folder."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", str(path.with_suffix(".key")), "-out", str(path)],
        check=True,
        capture_output=True,
    )
    return path


def test_through_tls_as_at_amazon_answers_end_in_time_too(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    paces = [Pace.BODY_BY_BYTE, Pace.ALL_BY_BYTE, Pace.NEVER, Pace.AT_ONCE, Pace.AT_ONCE]
    with SlowServer({blob_id(RAW): RAW}, lambda blob, attempt: paces[attempt - 1], tls=tls) as server:
        client = ContentClient(asking(server.url))
        begin = time.monotonic()
        assert [client.content(one_file()).raw for _ in range(2)] == [RAW, RAW]
        assert 3 * 0.5 <= time.monotonic() - begin < 3 * 0.5 + SLACK
    assert server.attempts == {blob_id(RAW): 5}


def test_bytes_that_drip_but_arrive_in_time_are_a_content() -> None:
    with SlowServer({blob_id(RAW): RAW}, lambda blob, attempt: Pace.ALL_BY_BYTE, pause=0.002) as server:
        content = ContentClient(asking(server.url, timeout=10.0)).content(one_file())
    assert (content.raw, content.failure) == (RAW, None)
    assert server.attempts == {blob_id(RAW): 1}


def test_after_an_answer_that_was_given_up_the_object_is_asked_for_again() -> None:
    paces = [Pace.BODY_BY_BYTE, Pace.NEVER, Pace.ALL_BY_BYTE, Pace.AT_ONCE]
    with SlowServer({blob_id(RAW): RAW}, lambda blob, attempt: paces[attempt - 1]) as server:
        client = ContentClient(asking(server.url, timeout=0.3))
        assert client.content(one_file()).raw == RAW
        # The connection stays usable.
        server.paces = lambda blob, attempt: Pace.AT_ONCE
        assert client.content(one_file()).raw == RAW
    assert server.attempts == {blob_id(RAW): 5}


def test_a_refusal_to_answer_fast_is_asked_as_often_as_attempts_say(endpoint: str, planted: Planted) -> None:
    file = planted.files[0]
    wanted = replace(one_file(), blob_id=file.blob_id, content_id=file.content_id)
    with FaultProxy(endpoint, always(SLOW_DOWN)) as proxy:
        client = ContentClient(replace(PATIENT, endpoint=proxy.url, attempts=2))
        assert client.content(wanted).failure == "throttled"
    assert proxy.requests == 2


def test_a_store_that_gives_nothing_ends_the_job_with_a_list_and_healed_it_ends_with_the_same_bytes(
    planted: Planted, snapshot: Path, endpoint: str, tmp_path: Path
) -> None:
    whole = bytes_of(build(stack_corpus(snapshot, endpoint, parts=1), tmp_path / "true"))
    with SlowServer(planted.contents, lambda blob, attempt: Pace.NEVER) as server:
        corpus = stack_corpus(snapshot, parts=1, contents=asking(server.url, timeout=0.3, retries=10))
        begin = time.monotonic()
        with pytest.raises(PonderTTTError) as error:
            build(corpus, tmp_path / "out")
        assert time.monotonic() - begin < 10 * 0.3 + SLACK
        asked = server.attempts.total()
        # Eight connections with a first attempt each, ten retries, and requests in flight when the last of them failed.
        assert 10 < asked <= 8 + 10 + 8
        message = str(error.value)
        assert "\n" not in message and "corpora.stack.hub.contents.retries" in message
        listed = json.loads((tmp_path / "out" / "contents" / "bucket-0" / "failures.json").read_text())
        # The first segment: all files, requested or not.
        assert len(listed) == 10
        assert {failure["reason"] for failure in listed} == {"network", "not_asked"}
        assert f"{len(listed)} contents could not be fetched" in message
        server.paces = lambda blob, attempt: Pace.AT_ONCE
        assert corpus.hub is not None
        healed = replace(corpus, hub=replace(corpus.hub, contents=asking(server.url, timeout=10.0)))
        assert bytes_of(build(healed, tmp_path / "out")) == whole


@pytest.mark.slow
def test_a_store_that_always_says_slow_down_ends_the_job_too(
    snapshot: Path, endpoint: str, tmp_path: Path
) -> None:
    with FaultProxy(endpoint, always(SLOW_DOWN)) as proxy:
        contents = replace(PATIENT, endpoint=proxy.url, connections=4, retries=6)
        with pytest.raises(PonderTTTError, match=r"throttled \d+.*contents\.retries"):
            build(stack_corpus(snapshot, parts=1, contents=contents), tmp_path)
    # boto3 sends one request in two seconds if all are refused.
    assert proxy.requests <= 4 + 6 + 4


def test_missing_files_that_are_allowed_do_not_hide_that_a_job_gave_up(
    snapshot: Path, endpoint: str, tmp_path: Path, planted: Planted
) -> None:
    # Half of them arrive, so fewer are missing than allowed.
    broken = [content_key(blob) for blob in sorted(planted.contents)[::2]]
    with FaultProxy(endpoint, always(RESET, broken)) as proxy:
        contents = replace(PATIENT, endpoint=proxy.url, retries=5, max_failures=0.99, segment_files=1_000)
        with pytest.raises(PonderTTTError, match="not_asked"):
            build(stack_corpus(snapshot, parts=1, contents=contents), tmp_path)
        assert proxy.attempts.keys() - set(broken)


def test_each_content_that_comes_gives_a_retry_back(snapshot: Path, endpoint: str, tmp_path: Path) -> None:
    with FaultProxy(endpoint, first(1, RESET)) as proxy:
        contents = replace(PATIENT, endpoint=proxy.url, connections=2, retries=4)
        build(stack_corpus(snapshot, parts=1, contents=contents), tmp_path)
    assert proxy.injected["RESET"] > 5 * 4
