"""What the stand-ins for servers of the network share: an HTTP server on a port of this machine."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class LocalServer:
    """Answers by a subclass of `handler`, whose `to` is this server, from `with` on."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.release = threading.Event()  # lets hanging answers go at the end
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"to": self}))
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # clients that were killed
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.die()

    def die(self) -> None:
        """Stop at once: from now on connections are refused."""
        self.release.set()
        self.http.shutdown()
        self.http.server_close()
