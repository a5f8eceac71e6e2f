"""What the servers of the tests have in common: on loopback, with a thread for each connection, and silent."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Waits for nobody when it ends."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def start(self) -> None:
        """Serve in a thread of its own."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Serve no more."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, as one that timed out does, is no error of the server."""


class Handler(BaseHTTPRequestHandler):
    """Keeps connections, and sends what it has at once."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        pass
