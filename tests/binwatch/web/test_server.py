"""Idle, slow and non-reading clients are disconnected, and others are answered in the meantime."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from binwatch.listening import listen
from binwatch.web.connections import ConnectionLimits
from binwatch.web.requests import MAX_REQUESTS_PER_PROBE, Receive, RequestLimit, Scope, Send, send_unavailable
from binwatch.web.server import make_config

WITHIN_S = 30
CONNECTIONS = 20
QUICK = ConnectionLimits(CONNECTIONS, head_s=0.2, silence_s=0.2, body_s=0.6, answer_s=0.2)
PATIENT = ConnectionLimits(CONNECTIONS, head_s=60, silence_s=60, body_s=60, answer_s=60)


class App:
    """Responds with the body's size; /held waits for `may_answer`, /large exceeds the kernel's send buffer."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.at_work = 0
        self.connections: Callable[[], Any] = tuple
        """The server's connections."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.at_work += 1
        try:
            await self._answer(scope["path"], receive, send)
        finally:
            self.at_work -= 1

    async def _answer(self, path: str, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size, more = size + len(message["body"]), message["more_body"]
        while path == "/held" and not self.may_answer.is_set():
            await asyncio.sleep(0.01)  # polling interval
        body = bytes(50_000_000) if path == "/large" else str(size).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})


Serve = Callable[[ConnectionLimits], int]


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def serve(app: App) -> Iterator[Serve]:
    """Return a function that serves `app` with at most four concurrent requests and returns the port."""
    with contextlib.ExitStack() as stack:
        yield lambda limits: stack.enter_context(_serving(app, limits))
        app.may_answer.set()


@contextlib.contextmanager
def _serving(app: App, limits: ConnectionLimits) -> Iterator[int]:
    limited = RequestLimit(app, 4, ["/healthz"], send_unavailable)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(make_config(limited, limited.total, grace_s=1, limits=limits))
    app.connections = lambda: server.server_state.connections
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(WITHIN_S)
        listener.close()


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_S} s"
        time.sleep(0.01)  # polling interval


def connect_and_send(port: int, text: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), WITHIN_S)
    client.sendall(text)
    return client


def read_to_end(client: socket.socket) -> bytes:
    """Return everything that the server sends until it closes the connection."""
    with client:
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(65_536):
                parts.append(part)
        return b"".join(parts)


def get(port: int, path: str = "/", body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: h\r\n", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1234", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n", b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n", b"HTTP/1.1 200 "),
    ],
    ids=["nothing", "half a head", "half a body", "a chunk", "half a second head"],
)
def test_a_stalled_request_is_disconnected(serve: Serve, app: App, request_: bytes, status: bytes) -> None:
    port = serve(QUICK)
    answer = read_to_end(connect_and_send(port, request_))
    assert answer.startswith(status)
    assert (b"\r\nconnection: close\r\n" in answer.lower()) == (b" 408 " in answer)
    wait_until(lambda: app.at_work == 0)
    assert get(port, body=b"12345") == (200, b"5")


@pytest.mark.parametrize(
    "head", [b"", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"], ids=["head", "body"]
)
def test_a_slow_request_is_disconnected(serve: Serve, head: bytes) -> None:
    client = connect_and_send(serve(QUICK), head)
    deadline = time.monotonic() + WITHIN_S
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while time.monotonic() < deadline:
            client.sendall(b"G")
            time.sleep(0.05)  # a slow client
        pytest.fail("still connected")
    client.close()


def test_a_client_that_reads_no_response_is_disconnected(serve: Serve, app: App) -> None:
    client = connect_and_send(serve(QUICK), b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
    assert client.recv(15) == b"HTTP/1.1 200 OK"
    wait_until(lambda: not app.connections())
    client.close()


def test_idle_connections_are_closed_for_new_ones(serve: Serve) -> None:
    port = serve(PATIENT)
    silent = [connect_and_send(port, b"G" * (number % 2)) for number in range(3 * CONNECTIONS)]
    assert get(port, body=b"12345") == (200, b"5")
    assert read_to_end(silent[0]) == b""  # the oldest connection is closed first
    for client in silent:
        client.close()


def test_probes_are_answered_while_the_request_limit_is_reached(serve: Serve, app: App) -> None:
    port = serve(PATIENT)
    busy = [connect_and_send(port, b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n") for _ in range(4)]
    wait_until(lambda: app.at_work == 4)
    assert get(port)[0] == 503
    assert get(port, "/healthz") == (200, b"0")
    silent = [connect_and_send(port) for _ in range(3 * CONNECTIONS)]
    assert get(port, "/healthz") == (200, b"0")  # connections with a request in progress are not closed
    app.may_answer.set()
    for client in busy:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert read_to_end(client).count(b"HTTP/1.1 200 ") == 2
    for client in silent:
        client.close()


def test_probes_are_limited_too(serve: Serve, app: App) -> None:
    port = serve(PATIENT)
    head = b"POST /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n"
    clients = [connect_and_send(port, head) for _ in range(MAX_REQUESTS_PER_PROBE)]
    wait_until(lambda: app.at_work == MAX_REQUESTS_PER_PROBE)
    assert get(port, "/healthz")[0] == 503
    assert get(port)[0] == 200
    for client in clients:
        client.close()
    wait_until(lambda: get(port, "/healthz")[0] == 200)


def test_a_refused_body_is_read_and_the_connection_kept_alive(serve: Serve, app: App) -> None:
    port = serve(PATIENT)
    busy = [connect_and_send(port, b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n") for _ in range(4)]
    wait_until(lambda: app.at_work == 4)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)
    for _ in range(2):
        connection.request("POST", "/", bytes(3_000_000))
        answer = connection.getresponse()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        answer.read()
    connection.close()
    for client in busy:
        client.close()
