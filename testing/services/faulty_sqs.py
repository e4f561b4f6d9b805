"""A proxy for moto's SQS that fails as AWS and networks do, for as many requests as a test wants."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import struct
import threading
from collections.abc import Collection, Iterator
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import pytest

from testing.services.http_server import Answer as Fault
from testing.services.http_server import LoopbackServer, read_body, respond

ALL_OPERATIONS = frozenset(
    {"ChangeMessageVisibility", "DeleteMessage", "DeleteMessageBatch", "GetQueueAttributes", "GetQueueUrl"}
    | {"ListQueues", "ReceiveMessage", "SendMessage"}
)
"""The operations that Binwatch and Celery use."""


class FaultySqs(LoopbackServer):
    """Forwards requests to moto, except those that are set to fail. Thread-safe."""

    def __init__(self, moto_url: str) -> None:
        self._moto = urlsplit(moto_url)
        self._lock = threading.Lock()
        self._faults: list[Fault | None] = []
        self._operations: Collection[str] = ()
        self._failing_until_told: Fault | None = None
        self.requested: set[tuple[str, str]] = set()
        """(host, operation) of each request so far."""
        self.queues_polled: set[str] = set()
        super().__init__(self._answer)

    def fail(self, *faults: Fault | None, operations: Collection[str] = ("ReceiveMessage",)) -> None:
        """Fail the next requests of these operations, one for each fault; None lets a request pass."""
        with self._lock:
            self._faults, self._operations = list(faults), operations

    def fail_until_told(self, fault: Fault | None, operations: Collection[str] = ("ReceiveMessage",)) -> None:
        """Fail all requests of these operations until this is called with None."""
        with self._lock:
            self._failing_until_told, self._operations = fault, operations

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Use TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    @property
    def remaining_faults(self) -> int:
        """Number of faults that are still to come."""
        with self._lock:
            return len(self._faults)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = read_body(handler)
        operation = handler.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.requested.add((handler.headers["Host"], operation))
        if operation == "ReceiveMessage":
            self.queues_polled.add(json.loads(body)["QueueUrl"].rpartition("/")[2])
        with self._lock:
            fault = None
            if operation in self._operations:
                fault = self._faults.pop(0) if self._faults else self._failing_until_told
        if fault is None:
            self._forward(handler, body)
        else:
            fault(handler)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        moto = http.client.HTTPConnection(str(self._moto.hostname), self._moto.port, timeout=30)
        moto.request("POST", handler.path, body, dict(handler.headers))
        answer = moto.getresponse()
        data = answer.read()
        moto.close()
        own = {"connection", "content-length", "content-type", "date", "server", "transfer-encoding"}
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in own}
        respond(answer.status, data, answer.getheader("Content-Type", ""), **headers)(handler)


def refuse(status: int, code: str) -> Fault:
    """Respond with an error in SQS's JSON."""
    body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "as the test asked"}).encode()
    return respond(status, body, "application/x-amz-json-1.0")


login_page = respond(200, b"<html>Please sign in</html>")
"""Responds with a login page and status 200, as a captive portal does."""


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Reset the connection."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def silent_for(seconds: float) -> Fault:
    """Send no answer, and close the connection after `seconds`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        threading.Event().wait(seconds)
        handler.close_connection = True

    return answer


@pytest.fixture
def faulty_sqs(moto_url: str) -> Iterator[FaultySqs]:
    """A proxy for moto's SQS that forwards everything until it is told to fail."""
    server = FaultySqs(moto_url)
    yield server
    server.close()
