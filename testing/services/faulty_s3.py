"""An S3 that answers as real ones do when something is wrong: what moto cannot be made to say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

LAST_MODIFIED = "Fri, 20 Nov 2026 08:00:00 GMT"


class FaultyS3:
    """Answers every request by `answer(handler)`; counts them in `requests`."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler], None] = refuse(500, "InternalError")
        self.requests = 0
        self.ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests += 1
                outer.answer(self)

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def hang(self, _: BaseHTTPRequestHandler) -> None:
        """Say nothing until the test is over."""
        self.ended.wait(30)

    def hang_within_the_body(self, handler: BaseHTTPRequestHandler) -> None:
        """Promise 1,000 bytes, send 10, and say nothing more until the test is over."""
        start(handler, 1000)
        handler.wfile.write(b"x" * 10)
        handler.wfile.flush()
        self.hang(handler)
        handler.close_connection = True

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start(handler: BaseHTTPRequestHandler, length: int) -> None:
    """Status and headers of a successful GetObject."""
    handler.send_response(200)
    headers = {"Content-Length": str(length), "ETag": '"abc"', "Last-Modified": LAST_MODIFIED}
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def refuse(status: int, code: str) -> Callable[[BaseHTTPRequestHandler], None]:
    """An error in S3's own XML."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test asked</Message></Error>"
    return say(status, body.encode(), "application/xml")


def say(status: int, body: bytes, content_type: str = "text/html") -> Callable[[BaseHTTPRequestHandler], None]:
    """Any other answer, such as a proxy's page."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def send(data: bytes, length: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    """A GetObject that promises `length` bytes, sends `data` and closes the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start(handler, len(data) if length is None else length)
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


@pytest.fixture
def faulty_s3() -> Iterator[FaultyS3]:
    """A server whose `answer` the test sets."""
    server = FaultyS3()
    yield server
    server.close()
