"""The base of the test servers: on loopback, one thread per connection, silent."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class Server(ThreadingHTTPServer):
    """A server that ends without waiting for its connections."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def start(self) -> None:
        """Serve in a new thread."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that go away, for example after a timeout."""


class Served:
    """A server that runs during a context; ``stopping`` ends the waits of its handlers."""

    def __init__(self, server: Server, scheme: str = "http") -> None:
        self.stopping = threading.Event()
        self.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
        self._server = server

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.stop()


class Handler(BaseHTTPRequestHandler):
    """A handler that keeps connections and sends without delay."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass
