"""Time limits for whole answers of a server, however slowly their bytes arrive."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any


def end_answers_in_time(s3: Any) -> None:
    """End a client's answers after its ``read_timeout``, which otherwise restarts with every byte."""
    pools = s3._endpoint.http_session._pool_classes_by_scheme
    for scheme, pool in list(pools.items()):
        connection = type("Connection", (pool.ConnectionCls,), {"response_class": _TimedResponse})
        pools[scheme] = type("Pool", (pool,), {"ConnectionCls": connection})


class _TimedResponse(http.client.HTTPResponse):
    """An answer whose head and body must arrive within the timeout of its socket."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_TimedBytes(self.fp.detach(), sock))


class _TimedBytes(io.RawIOBase):
    """The bytes of a socket until its timeout, counted from now, is over."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw, self._socket = raw, sock
        self._end = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
