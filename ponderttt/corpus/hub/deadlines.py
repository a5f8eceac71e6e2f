"""Answers of a server that end in time, however slowly their bytes arrive."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any


def end_answers_in_time(s3: Any) -> None:
    """A client's answers end after its ``read_timeout``, which by itself begins anew with every byte that arrives."""
    pools = s3._endpoint.http_session._pool_classes_by_scheme
    for scheme, pool in list(pools.items()):
        connection = type("Connection", (pool.ConnectionCls,), {"response_class": _TimedResponse})
        pools[scheme] = type("Pool", (pool,), {"ConnectionCls": connection})


class _TimedResponse(http.client.HTTPResponse):
    """An answer all of which, head and body, arrives within the timeout of its socket."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_TimedBytes(self.fp.detach(), sock))


class _TimedBytes(io.RawIOBase):
    """What arrives at a socket within its timeout from now."""

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
