"""An S3 server on loopback with contents stored as in the Software Heritage bucket.

It is moto's server in another process, so that clients use real sockets, real HTTP and all of boto3. Nothing is
replaced in the process under test.
"""

from __future__ import annotations

import gzip
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

REGION = "us-east-1"
START_SECONDS = 60.0

# The kernel chooses the port and the server prints it, so servers never compete for one. The server ends when its
# stdin closes, so also when its parent is killed.
_SERVER = """
import logging
import sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


def content_key(blob_id: str) -> str:
    """Return the S3 key of a blob's content."""
    return f"content/{blob_id}"


@contextmanager
def s3_server() -> Iterator[str]:
    """Run an empty S3 server during the context and provide its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        address = process.stdout.readline().split() if ready else []
        if len(address) != 2:
            raise RuntimeError(f"the S3 server did not start (exit status {process.poll()})")
        yield f"http://{address[0]}:{address[1]}"
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@cache
def _session() -> Any:
    """Return one session for all clients, so that they read the service description once."""
    import boto3

    return boto3.session.Session()


def s3_client(endpoint: str, *, connections: int = 16, signed: bool = True, **config: Any) -> Any:
    """Return a boto3 client of a local server, with keys that grant nothing or without a signature."""
    from botocore import UNSIGNED
    from botocore.config import Config

    if not signed:
        config["signature_version"] = UNSIGNED
    return _session().client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(max_pool_connections=connections, **config),
    )


def put_contents(endpoint: str, bucket: str, contents: Mapping[str, bytes], threads: int = 8) -> None:
    """Put each blob at `content/{blob_id}` as one gzip member, readable with and without a signature."""
    client = s3_client(endpoint, connections=threads)
    held = {entry["Name"] for entry in client.list_buckets()["Buckets"]}
    if bucket not in held:
        client.create_bucket(Bucket=bucket, ACL="public-read")

    def put(blob: tuple[str, bytes]) -> None:
        blob_id, content = blob
        body = gzip.compress(content, mtime=0)
        client.put_object(Bucket=bucket, Key=content_key(blob_id), Body=body, ACL="public-read")

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(put, contents.items()):
            pass
