"""A slow store: its answers arrive byte by byte, or never.

It serves gzip objects as an S3 bucket does, and records requests.
"""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum
from ssl import SSLContext

from loopback import Handler, Served, Server


class Pace(Enum):
    """The pace of an answer."""

    AT_ONCE = "at once"
    BODY_BY_BYTE = "a body byte by byte"
    ALL_BY_BYTE = "head and body byte by byte"
    ERROR_BY_BYTE = "an error byte by byte"
    NEVER = "never"


#: By blob and attempt, from 1.
Paces = Callable[[str, int], Pace]


class SlowServer(Served):
    """A server of ``contents`` by blob with a ``pause`` between two bytes.

    ``attempts`` counts requests by blob, ``signatures`` holds their Authorization headers.
    """

    def __init__(
        self,
        contents: Mapping[str, bytes],
        paces: Paces,
        pause: float = 0.3,
        tls: SSLContext | None = None,
    ) -> None:
        self.contents, self.paces, self.pause = contents, paces, pause
        self.attempts: Counter[str] = Counter()
        self.signatures: list[str | None] = []
        self.lock = threading.Lock()
        server = _Server(("127.0.0.1", 0), _Handler)
        server.slow = self
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        super().__init__(server, "http" if tls is None else "https")


class _Server(Server):
    slow: SlowServer


class _Handler(Handler):
    server: _Server

    def do_GET(self) -> None:
        slow = self.server.slow
        blob = self.path.partition("?")[0].rpartition("/")[2]
        with slow.lock:
            slow.attempts[blob] += 1
            slow.signatures.append(self.headers.get("Authorization"))
            pace = slow.paces(blob, slow.attempts[blob])
        if pace is Pace.NEVER:
            slow.stopping.wait()
            self.close_connection = True
            return
        status, body = "200 OK", gzip.compress(slow.contents[blob], mtime=0)
        if pace is Pace.ERROR_BY_BYTE:
            status, body = "503 Slow Down", b"<Error><Code>SlowDown</Code></Error>"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        if pace is not Pace.ALL_BY_BYTE:
            self.wfile.write(head)
            head = b""
        if pace is Pace.AT_ONCE:
            self.wfile.write(body)
            return
        for byte in head + body:
            self.wfile.write(bytes([byte]))
            if slow.stopping.wait(slow.pause):
                break
