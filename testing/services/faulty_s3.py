"""An S3 that answers as real ones do when something is wrong: what moto cannot be made to say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from testing.services.http_server import Answer, LoopbackServer, body_of, say

LAST_MODIFIED = "Fri, 20 Nov 2026 08:00:00 GMT"


class FaultyS3(LoopbackServer):
    """Answers every request by `answer(handler)`; counts them in `requests`."""

    def __init__(self) -> None:
        self.answer: Answer = refuse(500, "InternalError")
        self.requests = 0
        self.ended = threading.Event()
        super().__init__(self._count_and_answer)

    def _count_and_answer(self, handler: BaseHTTPRequestHandler) -> None:
        body_of(handler)
        self.requests += 1
        self.answer(handler)

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
        super().close()


def start(handler: BaseHTTPRequestHandler, length: int) -> None:
    """Status and headers of a successful GetObject."""
    handler.send_response(200)
    headers = {"Content-Length": str(length), "ETag": '"abc"', "Last-Modified": LAST_MODIFIED}
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()


def refuse(status: int, code: str) -> Answer:
    """An error in S3's own XML."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as the test asked</Message></Error>"
    return say(status, body.encode(), "application/xml")


def send(data: bytes, length: int | None = None) -> Answer:
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
