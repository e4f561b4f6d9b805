"""An HTTP server on the loopback address whose answers the test defines."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class LoopbackServer:
    """Listens on a free port and answers every request by `answer(handler)`, each in its own thread, until closed."""

    def __init__(self, answer: Answer) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer(self)

            do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 (the names are http.server's)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients may have been killed
        self.port = int(self._server.server_address[1])
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def read_body(handler: BaseHTTPRequestHandler) -> bytes:
    """Read the body of a request; empty if it has none."""
    return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))


def respond(status: int, body: bytes, content_type: str = "text/html", /, **headers: str) -> Answer:
    """Respond with this body, or without it to HEAD. `headers` may have any name: moto sends one called `status`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return answer
