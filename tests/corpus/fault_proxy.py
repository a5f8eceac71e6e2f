"""A reverse proxy for an S3 server that injects the faults of a real network and store.

A rule decides by object key and attempt, so a test knows the fault of every request.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import unquote, urlsplit

from loopback import Handler, Served, Server


@dataclass(frozen=True)
class Fault:
    """A kind of fault. `seconds` is the pause of a slow answer."""

    name: str
    seconds: float = 0.0


SLOW_DOWN = Fault("SLOW_DOWN")  # 503 SlowDown
RESET = Fault("RESET")  # half of the body, then a TCP reset
TRUNCATED = Fault("TRUNCATED")  # half of the gzip member with a matching Content-Length
WRONG_BYTES = Fault("WRONG_BYTES")  # a valid gzip member of as many bytes, one of them changed
NOT_GZIP = Fault("NOT_GZIP")  # 200 and a page of HTML
NOT_FOUND = Fault("NOT_FOUND")  # 404 NoSuchKey
DENIED = Fault("DENIED")  # 403 AccessDenied
SLOW = Fault("SLOW", seconds=2.0)  # the true body with a pause half-way

Rule = Callable[[str, int], Fault | None]

_ERRORS = {
    SLOW_DOWN.name: (503, "SlowDown", "Please reduce your request rate."),
    NOT_FOUND.name: (404, "NoSuchKey", "The specified key does not exist."),
    DENIED.name: (403, "AccessDenied", "Access Denied"),
}
_PAGE = b"<html><body><h1>The service is not available at the moment</h1></body></html>\n"
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


def slow(seconds: float) -> Fault:
    """Send the true body with a pause half-way."""
    return Fault(SLOW.name, seconds)


def first(count: int, fault: Fault, keys: Iterable[str] | None = None) -> Rule:
    """Inject the fault at the first attempts of these keys, or of all."""
    wanted = None if keys is None else frozenset(keys)

    def rule(key: str, attempt: int) -> Fault | None:
        return fault if attempt <= count and (wanted is None or key in wanted) else None

    return rule


def always(fault: Fault, keys: Iterable[str] | None = None) -> Rule:
    """Inject the fault at every attempt of these keys, or of all."""
    wanted = None if keys is None else frozenset(keys)

    def rule(key: str, attempt: int) -> Fault | None:
        return fault if wanted is None or key in wanted else None

    return rule


def randomly(share: float, seed: int, faults: Sequence[Fault]) -> Rule:
    """Inject one of the faults at a share of all attempts. A hash decides, so every run is the same."""

    def rule(key: str, attempt: int) -> Fault | None:
        digest = hashlib.sha256(f"{seed}:{key}:{attempt}".encode()).digest()
        if int.from_bytes(digest[:8]) >= share * 2**64:
            return None
        return faults[int.from_bytes(digest[8:16]) % len(faults)]

    return rule


def any_of(*rules: Rule) -> Rule:
    """Inject the fault of the first rule that has one."""

    def rule(key: str, attempt: int) -> Fault | None:
        return next((fault for one in rules if (fault := one(key, attempt)) is not None), None)

    return rule


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def length(self, method: str) -> int:
        """Return the length of the body; the answer to a HEAD states it without a body."""
        told = next((value for name, value in self.headers if name.lower() == "content-length"), "0")
        return int(told) if method == "HEAD" else len(self.body)

    def undamaged_headers(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self.headers if name.lower() != "content-length"]

    def damaged_headers(self) -> list[tuple[str, str]]:
        """Remove the headers that would let the client library notice a damaged body."""
        return [
            (name, value)
            for name, value in self.undamaged_headers()
            if name.lower() != "etag" and not name.lower().startswith("x-amz-checksum-")
        ]


class FaultProxy(Served):
    """Forwards GET and HEAD to `endpoint`; faults are injected into GETs of objects.

    `requests` counts what arrived, `injected` the faults by name. An attempt is a GET of a key, from 1.
    """

    def __init__(self, endpoint: str, rule: Rule = lambda key, attempt: None) -> None:
        self.rule = rule
        self.requests = 0
        self.injected: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        upstream = urlsplit(endpoint)
        assert upstream.hostname is not None
        self.upstream: tuple[str, int] = (upstream.hostname, upstream.port or 80)
        self._lock = threading.Lock()
        server = _Server(("127.0.0.1", 0), _Handler)
        server.proxy = self
        super().__init__(server)

    def decide(self, method: str, target: str) -> Fault | None:
        """Count a request and return the fault of the rule."""
        _, _, key = unquote(urlsplit(target).path).lstrip("/").partition("/")
        with self._lock:
            self.requests += 1
            if method != "GET" or not key:
                return None
            self.attempts[key] += 1
            fault = self.rule(key, self.attempts[key])
            if fault is not None:
                self.injected[fault.name] += 1
            return fault


class _Server(Server):
    proxy: FaultProxy


class _Handler(Handler):
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.link = HTTPConnection(*self.server.proxy.upstream, timeout=60)

    def finish(self) -> None:
        self.link.close()
        super().finish()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        fault = self.server.proxy.decide(self.command, self.path)
        if fault is not None and fault.name in _ERRORS:
            self.answer_error(*_ERRORS[fault.name])
            return
        answer = self.fetch()
        if answer is None:
            self.answer_error(502, "BadGateway", "The store does not answer.")
        elif fault is None or answer.status != 200:
            self.start(answer.status, answer.undamaged_headers(), answer.length(self.command))
            self.send(answer.body)
        else:
            self.answer_fault(fault, answer)

    def fetch(self) -> _Answer | None:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        for _ in range(2):  # the other side may have closed a kept connection
            try:
                self.link.request(self.command, self.path, headers=headers)
                response = self.link.getresponse()
                body = response.read()
            except (HTTPException, OSError):
                self.link.close()
                continue
            kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
            return _Answer(response.status, kept, body)
        return None

    def answer_fault(self, fault: Fault, answer: _Answer) -> None:
        body, half = answer.body, len(answer.body) // 2
        if fault.name == RESET.name:
            self.start(200, answer.undamaged_headers(), len(body))
            self.wfile.write(body[:half])
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())  # at once: the server would first end the stream properly
            self.close_connection = True
        elif fault.name == SLOW.name:
            self.start(200, answer.undamaged_headers(), len(body))
            self.wfile.write(body[:half])
            self.server.proxy.stopping.wait(fault.seconds)
            self.wfile.write(body[half:])
        else:
            damaged = {
                TRUNCATED.name: lambda: body[:half],
                WRONG_BYTES.name: lambda: other_gzip(body),
                NOT_GZIP.name: lambda: _PAGE,
            }[fault.name]()
            self.start(200, answer.damaged_headers(), len(damaged))
            self.send(damaged)

    def answer_error(self, status: int, code: str, message: str) -> None:
        key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{message}</Message><Key>{key}</Key>"
            "<RequestId>0000000000000000</RequestId><HostId>local</HostId></Error>"
        ).encode()
        self.start(status, [("Content-Type", "application/xml")], len(body))
        self.send(body)

    def start(self, status: int, headers: list[tuple[str, str]], length: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def send(self, body: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(body)


def other_gzip(body: bytes) -> bytes:
    """Return a valid gzip member with as many bytes as the true content, the first of them changed."""
    content = gzip.decompress(body)
    return gzip.compress(bytes([content[0] ^ 1]) + content[1:] if content else b"\n", mtime=0)
