"""A server in front of moto's SQS that fails as AWS and networks do, for so many requests as a test asks for."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Collection, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

Fault = Callable[[BaseHTTPRequestHandler], None]

ALL = frozenset(
    {"ChangeMessageVisibility", "DeleteMessage", "DeleteMessageBatch", "GetQueueAttributes", "GetQueueUrl"}
    | {"ListQueues", "ReceiveMessage", "SendMessage"}
)
"""What Binwatch and Celery ask of SQS."""


class FaultySqs:
    """Passes requests on to moto, but for those that are to fail. Safe to use from several threads."""

    def __init__(self, moto_url: str) -> None:
        host, port = urlsplit(moto_url).hostname, urlsplit(moto_url).port
        self._lock = threading.Lock()
        self._faults: list[Fault | None] = []
        self._operations: Collection[str] = ()
        self._failing_until_told: Fault | None = None
        self.asked: set[tuple[str, str]] = set()
        """Host and operation of each request."""
        self.queues_polled: set[str] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
                outer.asked.add((self.headers["Host"], operation))
                if operation == "ReceiveMessage":
                    outer.queues_polled.add(json.loads(body)["QueueUrl"].rpartition("/")[2])
                fault = outer._fault_for(operation)
                if fault is not None:
                    fault(self)
                    return
                moto = http.client.HTTPConnection(str(host), port, timeout=30)
                moto.request("POST", self.path, body, dict(self.headers))
                answer = moto.getresponse()
                data = answer.read()
                moto.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {"connection", "content-length", "date", "server", "transfer-encoding"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that were killed
        self.port = int(self._server.server_address[1])
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def fail(self, *faults: Fault | None, operations: Collection[str] = ("ReceiveMessage",)) -> None:
        """Have the next requests of these operations fail, one for each fault; None lets one pass."""
        with self._lock:
            self._faults, self._operations = list(faults), operations

    def fail_until_told(self, fault: Fault | None, operations: Collection[str] = ("ReceiveMessage",)) -> None:
        """Have all requests of these operations fail until this is called with None."""
        with self._lock:
            self._failing_until_told, self._operations = fault, operations

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """Encrypt from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    @property
    def left(self) -> int:
        """Requests that are still to fail."""
        with self._lock:
            return len(self._faults)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _fault_for(self, operation: str) -> Fault | None:
        with self._lock:
            if operation not in self._operations:
                return None
            return self._faults.pop(0) if self._faults else self._failing_until_told


def refuse(status: int, code: str) -> Fault:
    """An error as SQS states it."""
    body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": "as the test asked"}).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/x-amz-json-1.0")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def page(handler: BaseHTTPRequestHandler) -> None:
    """A login page with status 200, as a captive proxy has it."""
    body = b"<html>Please sign in</html>"
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def reset(handler: BaseHTTPRequestHandler) -> None:
    """The connection is reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def silent_for(seconds: float) -> Fault:
    """No answer for so long; then the connection is closed."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        threading.Event().wait(seconds)
        handler.close_connection = True

    return answer


@pytest.fixture
def faulty_sqs(moto_url: str) -> Iterator[FaultySqs]:
    """A server in front of moto's SQS that passes everything on until it is told to fail."""
    server = FaultySqs(moto_url)
    yield server
    server.close()
