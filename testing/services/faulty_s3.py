"""An S3 server that fails as real ones do, in ways that moto cannot simulate."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from testing.services.http_server import Answer, LoopbackServer, read_body, respond

LAST_MODIFIED = "Fri, 20 Nov 2026 08:00:00 GMT"


class FaultyS3(LoopbackServer):
    """Answers every request by `answer(handler)`; counts them in `requests`."""

    def __init__(self) -> None:
        self.answer: Answer = refuse(500, "InternalError")
        self.requests = 0
        self.ended = threading.Event()
        super().__init__(self._count_and_answer)

    def _count_and_answer(self, handler: BaseHTTPRequestHandler) -> None:
        read_body(handler)
        self.requests += 1
        self.answer(handler)

    def hang(self, _: BaseHTTPRequestHandler) -> None:
        """Send nothing until the test is over, or for 30 seconds."""
        self.ended.wait(30)

    def hang_within_the_body(self, handler: BaseHTTPRequestHandler) -> None:
        """Promise 1,000 bytes, send 10, and then hang."""
        send_headers(handler, 1000)
        handler.wfile.write(b"x" * 10)
        handler.wfile.flush()
        self.hang(handler)
        handler.close_connection = True

    def close(self) -> None:
        self.ended.set()
        super().close()


def send_headers(handler: BaseHTTPRequestHandler, length: int) -> None:
    """Send the status and headers of a successful GetObject."""
    handler.send_response(200)
    headers = {"Content-Length": str(length), "ETag": '"abc"', "Last-Modified": LAST_MODIFIED}
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def refuse(status: int, code: str) -> Answer:
    """Respond with an error in S3's XML."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test asked</Message></Error>"
    return respond(status, body.encode(), "application/xml")


def send(data: bytes, length: int | None = None) -> Answer:
    """Respond to GetObject: promise `length` bytes, send `data`, and close the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        send_headers(handler, len(data) if length is None else length)
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


@pytest.fixture
def faulty_s3() -> Iterator[FaultyS3]:
    """A server whose `answer` the test sets."""
    server = FaultyS3()
    yield server
    server.close()
