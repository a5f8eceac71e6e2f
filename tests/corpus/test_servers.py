"""The local servers work with the real client libraries."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ResponseStreamingError

import fault_proxy as faults
from fault_proxy import Fault, FaultProxy, Rule
from hub_server import HubServer, commit_of
from s3_server import content_key, put_contents, s3_client, s3_server
from stack_data import (
    V2_IDS_SCHEMA,
    V2_SCHEMA,
    V3_SCHEMA,
    Planted,
    planted_files,
    write_stack_v2,
    write_stack_v2_ids,
    write_stack_v3,
)

BUCKET = "softwareheritage"
V2, V3 = "bigcode/the-stack-v2-dedup", "HuggingFaceCode/stack-v3-train"
BLOBS = [f"# blob {number}\n".encode() * 400 for number in range(24)]
CONTENTS = {hashlib.sha1(blob).hexdigest(): blob for blob in BLOBS}
KEYS = [content_key(blob_id) for blob_id in CONTENTS]


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with s3_server() as url:
        put_contents(url, BUCKET, CONTENTS)
        yield url


@pytest.fixture(scope="module")
def planted() -> Planted:
    return planted_files(60)


@pytest.fixture(scope="module")
def hub_root(tmp_path_factory: pytest.TempPathFactory, planted: Planted) -> Path:
    root = tmp_path_factory.mktemp("hub")
    write_stack_v2(root / V2, planted.files, ["Python"])
    write_stack_v3(root / V3, planted.files)
    return root


def read(endpoint: str, key: str, attempts: int = 1) -> bytes:
    client = s3_client(endpoint, retries={"total_max_attempts": attempts, "mode": "standard"})
    return client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


@pytest.mark.parametrize("signed", [True, False])
def test_the_store_gives_each_blob_as_one_gzip_member_to_anyone(store: str, signed: bool) -> None:
    client = s3_client(store, signed=signed)
    for blob_id, content in list(CONTENTS.items())[:3]:
        body = client.get_object(Bucket=BUCKET, Key=content_key(blob_id))["Body"].read()
        assert gzip.decompress(body) == content


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (faults.SLOW_DOWN, 503, "SlowDown"),
        (faults.NOT_FOUND, 404, "NoSuchKey"),
        (faults.DENIED, 403, "AccessDenied"),
    ],
)
def test_an_injected_error_is_the_stores_own_error_to_boto3(
    store: str, fault: Fault, status: int, code: str
) -> None:
    with FaultProxy(store, faults.always(fault)) as proxy, pytest.raises(ClientError) as caught:
        read(proxy.url, KEYS[0])
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert proxy.injected == {fault.name: 1}


def test_a_reset_breaks_the_connection_within_the_body(store: str) -> None:
    with (
        FaultProxy(store, faults.always(faults.RESET)) as proxy,
        pytest.raises((ResponseStreamingError, ConnectionClosedError), match="reset"),
    ):
        read(proxy.url, KEYS[0])
    assert proxy.injected == {"RESET": 1}


def test_damaged_bodies_pass_through_boto3_unnoticed(store: str) -> None:
    whole = gzip.compress(BLOBS[0], mtime=0)
    bodies = {}
    for fault in (faults.TRUNCATED, faults.WRONG_BYTES, faults.NOT_GZIP):
        with FaultProxy(store, faults.always(fault)) as proxy:
            bodies[fault.name] = read(proxy.url, KEYS[0], attempts=3)
            assert (proxy.requests, proxy.injected) == (1, {fault.name: 1})
    assert bodies["TRUNCATED"] == whole[: len(whole) // 2]
    other = gzip.decompress(bodies["WRONG_BYTES"])
    assert len(other) == len(BLOBS[0]) and other != BLOBS[0]
    with pytest.raises(gzip.BadGzipFile):
        gzip.decompress(bodies["NOT_GZIP"])


def test_a_slow_body_arrives_whole(store: str) -> None:
    with FaultProxy(store, faults.always(faults.slow(0.05))) as proxy:
        assert gzip.decompress(read(proxy.url, KEYS[0])) == BLOBS[0]


def test_faults_of_the_first_attempts_end_and_other_keys_have_none(store: str) -> None:
    with FaultProxy(store, faults.first(2, faults.TRUNCATED, KEYS[:1])) as proxy:
        whole = [read(proxy.url, KEYS[0]) == gzip.compress(BLOBS[0], mtime=0) for _ in range(3)]
        assert gzip.decompress(read(proxy.url, KEYS[1])) == BLOBS[1]
    assert whole == [False, False, True]
    assert (proxy.requests, proxy.injected, proxy.attempts[KEYS[0]]) == (4, {"TRUNCATED": 2}, 3)


def test_random_faults_come_at_the_share_asked_for_and_alike_on_every_run() -> None:
    def drawn(rule: Rule) -> list[Fault | None]:
        return [rule(f"content/{number}", attempt) for number in range(1_000) for attempt in (1, 2)]

    kinds = [faults.SLOW_DOWN, faults.RESET]
    draws = drawn(faults.randomly(0.2, 7, kinds))
    assert draws == drawn(faults.randomly(0.2, 7, kinds)) != drawn(faults.randomly(0.2, 8, kinds))
    assert 0.17 < sum(fault is not None for fault in draws) / len(draws) < 0.23
    assert set(draws) == {None, *kinds}


def test_the_proxy_serves_64_connections_at_once(store: str) -> None:
    with FaultProxy(store, faults.always(faults.slow(0.3))) as proxy, ThreadPoolExecutor(64) as pool:
        client = s3_client(proxy.url, connections=64)
        wanted = [KEYS[number % len(KEYS)] for number in range(64)]
        bodies = pool.map(lambda key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read(), wanted)
        assert {gzip.decompress(body) for body in bodies} == set(BLOBS)
    assert proxy.requests == proxy.injected["SLOW"] == 64


_CLIENT = f"""
import sys
from datasets import load_dataset
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

v2, v3, sha2, sha3, local = sys.argv[1:]
print("v3", sum(len(row["files"]) for row in load_dataset(v3, split="train", streaming=True, revision=sha3)))
for name in (v2, local):
    revision = sha2 if name == v2 else None
    rows = load_dataset(
        name, name="Python", split="train", streaming=True, revision=revision, token="hf_accepted"
    )
    print("v2", len({{row["path"] + row["repo_name"] for row in rows}}))

def answer(call):
    try:
        return call()
    except HfHubHTTPError as error:
        return type(error).__name__, error.response.status_code

def download(token, revision=sha2):
    path = "data/Python/train-00000-of-00002.parquet"
    api = HfApi(token=token)
    return answer(lambda: bool(api.hf_hub_download(v2, path, repo_type="dataset", revision=revision)))

print("gate", download(False), download("hf_other"), download("hf_bogus"), download("hf_accepted"))
print("revision", download("hf_accepted", "{"0" * 40}"))
for token in (False, "hf_other"):
    print("unknown", *answer(lambda: HfApi(token=token).dataset_info("no/such")))
"""


def test_the_hub_streams_gates_and_refuses_as_its_clients_expect(
    tmp_path: Path, hub_root: Path, planted: Planted
) -> None:
    with HubServer(hub_root, gated={V2}, page=2) as hub:
        arguments = [V2, V3, commit_of(V2), commit_of(V3), os.fspath(hub_root / V2)]
        done = subprocess.run(
            [sys.executable, "-c", _CLIENT, *arguments],
            env=hub.environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"v3 {len(planted.files)}",
        f"v2 {len(planted.files)}",
        f"v2 {len(planted.files)}",
        "gate ('GatedRepoError', 401) ('GatedRepoError', 403) ('HfHubHTTPError', 401) True",
        "revision ('RevisionNotFoundError', 404)",
        "unknown RepositoryNotFoundError 401",
        "unknown RepositoryNotFoundError 404",
    ]
    assert hub.requests["store"] > 0
    assert hub.leaked == 0, "no token leaves the hub for the store"


def test_planted_copies_are_what_they_are_called(planted: Planted) -> None:
    assert len({(file.repo_name, file.path) for file in planted.files}) == len(planted.files)
    assert all(one.blob_id == two.blob_id and one.repo_name != two.repo_name for one, two in planted.exact)
    for one, two in planted.near:
        lines = [set(file.text.splitlines()) for file in (one, two)]
        assert one.blob_id != two.blob_id
        assert len(lines[0] & lines[1]) > 0.85 * len(lines[0] | lines[1])
    assert len(planted.files) - len(planted.contents) == len(planted.exact)
    assert planted.latin1
    for file in planted.latin1:
        assert "François" in file.text
        with pytest.raises(UnicodeDecodeError):
            file.content.decode("utf-8")
    kinds = {file.license_type for file in planted.files}
    assert kinds == {"permissive", "no_license", "non_permissive"}


def test_snapshots_have_the_published_columns(tmp_path: Path, planted: Planted) -> None:
    missing = planted.files[0].content_id
    write_stack_v2(tmp_path / "v2", planted.files, ["Python"], filename=True)
    write_stack_v2_ids(tmp_path / "ids", planted.files)
    write_stack_v3(tmp_path / "v3", planted.files, parts=3, without_content={missing})
    v2, ids, v3 = (
        [pq.read_table(path) for path in sorted((tmp_path / name).rglob("*.parquet"))]
        for name in ("v2", "ids", "v3")
    )
    assert [table.schema.names for table in v2] == [[*V2_SCHEMA.names, "filename"]] * 2
    assert [table.schema for table in ids] == [V2_IDS_SCHEMA] * 2
    assert [table.schema for table in v3] == [V3_SCHEMA] * 3
    repositories = [name for table in v3 for name in table["repo_name"].to_pylist()]
    assert repositories == sorted({file.repo_name for file in planted.files})
    listed = [file for table in v3 for files in table["files"].to_pylist() for file in files]
    assert {file["content_id"] for file in listed if file["content"] is None} == {missing}
