"""Credentials sign requests to a bucket, and an error in them or in an address is one line."""

from __future__ import annotations

import gzip
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fault_proxy import DENIED, FaultProxy, always
from ponderttt.corpus.files import blob_id, content_id
from ponderttt.corpus.hub.candidates import Candidate
from ponderttt.corpus.hub.contents import ContentClient
from ponderttt.errors import ConfigError, PonderTTTError
from ponderttt.settings.hub import ContentsConfig
from s3_server import REGION, content_key, s3_client, s3_server
from slow_server import Pace, SlowServer
from stack_builds import PATIENT, build, facts_of, stack_corpus
from stack_data import Planted

RAW = b"print('only for members')\n"
BUCKET = "members"


class Guarded(NamedTuple):
    """A bucket that checks credentials, with valid and invalid ones."""

    url: str
    reader: tuple[str, str]
    stranger: tuple[str, str]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    import boto3

    with s3_server() as url:
        s3 = s3_client(url)
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key=content_key(blob_id(RAW)), Body=gzip.compress(RAW, mtime=0))
        iam: Any = boto3.client(
            "iam",
            endpoint_url=url,
            region_name=REGION,
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        keys = []
        for name, effect in (("reader", "Allow"), ("stranger", "Deny")):
            iam.create_user(UserName=name)
            rule = {"Effect": effect, "Action": "s3:*", "Resource": "*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
            iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=policy)
            key = iam.create_access_key(UserName=name)["AccessKey"]
            keys.append((key["AccessKeyId"], key["SecretAccessKey"]))
        # From here on every request is checked.
        command = urllib.request.Request(
            f"{url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(command).close()
        yield Guarded(url, *keys)


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove all credentials of the environment."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "DEFAULT_PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def become(monkeypatch: pytest.MonkeyPatch, key: str, secret: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)


def wanted(raw: bytes = RAW) -> Candidate:
    return Candidate(
        "o/n", "a.py", blob_id(raw), content_id(raw), "Python", "permissive", (), "ISO-8859-1", 1, False, False,
        0, 0, 0, None,
    )  # fmt: skip


def member(url: str) -> ContentsConfig:
    return replace(PATIENT, bucket=BUCKET, endpoint=url, signed=True, attempts=2)


def test_who_may_read_a_bucket_reads_it(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, *guarded.reader)
    assert ContentClient(member(guarded.url)).content(wanted()).raw == RAW


def test_credentials_of_a_profile_are_found(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key, secret = guarded.reader
    text = f"[work]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    (tmp_path / "credentials").write_text(text)
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert ContentClient(member(guarded.url)).content(wanted()).raw == RAW


@pytest.mark.parametrize(
    ("who", "code"),
    [
        ("stranger", "AccessDenied"),
        ("wrong secret", "SignatureDoesNotMatch"),
        ("unknown", "InvalidAccessKeyId"),
    ],
)
def test_who_may_not_is_told_what_the_server_said_and_what_to_check(
    who: str, code: str, guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {
        "stranger": guarded.stranger,
        "wrong secret": (guarded.reader[0], "x" * 40),
        "unknown": ("AKIAUNKNOWN000000000", "x" * 40),
    }
    become(monkeypatch, *keys[who])
    with pytest.raises(PonderTTTError, match=rf"s3://members .*refuses \({code}\); check AWS_ACCESS_KEY_ID"):
        ContentClient(member(guarded.url)).content(wanted())


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "no credentials to sign with; check AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "alone"}, "missing: AWS_SECRET_ACCESS_KEY; check AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "nobody"}, r"profile \(nobody\) could not be found; check .* or AWS_PROFILE"),
    ],
    ids=["none", "half", "unknown profile"],
)
def test_without_good_credentials_signed_is_one_line_before_anything_is_asked_and_unsigned_works(
    environment: dict[str, str], told: str, planted: Planted, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with FaultProxy(endpoint) as proxy:
        config = replace(PATIENT, endpoint=proxy.url, signed=True)
        with pytest.raises(PonderTTTError, match=f"s3://softwareheritage at {proxy.url}: .*{told}") as error:
            ContentClient(config)
        assert "\n" not in str(error.value) and "hub.contents.signed to false" in str(error.value)
        assert proxy.requests == 0
        raw = planted.files[0].content
        assert ContentClient(replace(config, signed=False)).content(wanted(raw)).raw == raw


def test_files_of_profiles_that_cannot_be_read_are_nothing_to_unsigned_requests(
    planted: Planted, endpoint: str, tmp_path: Path
) -> None:
    for name in ("config", "credentials"):
        (tmp_path / name).write_text("no profile at all\n")
    raw = planted.files[0].content
    assert ContentClient(replace(PATIENT, endpoint=endpoint)).content(wanted(raw)).raw == raw
    with pytest.raises(PonderTTTError, match="Unable to parse config file"):
        ContentClient(replace(PATIENT, endpoint=endpoint, signed=True))


@pytest.mark.parametrize("signed", [True, False])
def test_requests_are_signed_if_and_only_if_that_is_wanted(
    signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, "AKIAOWNER", "secret")
    with SlowServer({blob_id(RAW): RAW}, lambda blob, attempt: Pace.AT_ONCE) as server:
        config = replace(PATIENT, endpoint=server.url, signed=signed)
        assert ContentClient(config).content(wanted()).raw == RAW
    (signature,) = server.signatures
    if signed:
        assert signature is not None and signature.startswith("AWS4-HMAC-SHA256 Credential=AKIAOWNER/")
    else:
        assert signature is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"endpoint": "localhost:5000"}, "endpoint must be a URL such as"),
        ({"endpoint": "http://store:port"}, "endpoint must be a URL such as"),
        ({"endpoint": "s3://store"}, "endpoint must be a URL such as"),
        (
            {"bucket": "s3://softwareheritage"},
            "bucket must be the name alone",
        ),
        (
            {"bucket": "softwareheritage/content"},
            "bucket must be the name alone",
        ),
        ({"timeout": 0.0}, "timeout must be greater than 0, got 0.0"),
        ({"retries": -1}, "retries must be at least 0, got -1"),
    ],
)
def test_a_setting_that_cannot_be_is_named_at_once(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ContentsConfig(**changes)


@pytest.mark.parametrize("changes", [{"endpoint": "http://my_host:80"}, {"region": "eu west"}])
def test_what_boto3_makes_no_client_of_is_one_line(changes: dict[str, Any]) -> None:
    with pytest.raises(
        PonderTTTError, match=r"check hub\.contents\.endpoint and hub.contents.region"
    ) as error:
        ContentClient(ContentsConfig(**changes))
    assert "\n" not in str(error.value)


def test_a_bucket_that_refuses_the_first_requests_refuses_all(endpoint: str, planted: Planted) -> None:
    with FaultProxy(endpoint, always(DENIED)) as proxy:
        client = ContentClient(replace(PATIENT, endpoint=proxy.url))
        with pytest.raises(PonderTTTError, match=r"refuses \(AccessDenied\)"):
            client.content(wanted(planted.files[0].content))
    assert proxy.requests == 1


@pytest.mark.parametrize("place", [0, -1], ids=["first of all", "last of all"])
def test_one_object_that_is_refused_among_others_is_a_failure_of_its_own(
    place: int, snapshot: Path, endpoint: str, tmp_path: Path, planted: Planted
) -> None:
    asked: list[str] = []
    with FaultProxy(endpoint) as proxy:
        build(
            stack_corpus(snapshot, parts=1, contents=replace(PATIENT, endpoint=proxy.url, connections=1)),
            tmp_path / "a",
        )
        asked += proxy.attempts  # in their order
        proxy.rule = always(DENIED, [asked[place]])
        corpus = stack_corpus(snapshot, parts=1, contents=replace(PATIENT, endpoint=proxy.url, connections=4))
        with pytest.raises(PonderTTTError, match=r"1 contents could not be fetched \(forbidden 1\)"):
            build(corpus, tmp_path / "b")
        assert proxy.injected["DENIED"] == 1  # another attempt would not help
        allowed = replace(PATIENT, endpoint=proxy.url, connections=4, max_failures=0.5)
        # Also when everything else is on disk, and only the refused object is requested.
        shards = build(stack_corpus(snapshot, parts=1, contents=allowed), tmp_path / "b")
    assert facts_of(shards)["failures"] == {"forbidden": 1}
